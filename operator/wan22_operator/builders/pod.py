"""The pod of one worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from wan22_operator.cluster import Object
from wan22_operator.names import POOL, REVISION, WORKER_HEALTH_PORT, WORKER_PORT, PoolKey
from wan22_operator.settings import OperatorSettings
from wan22_operator.spec import PoolSpec

CACHE, SCRATCH, TLS = "/var/cache/wan22", "/var/lib/wan22", "/etc/wan22/tls"
USER = 10001
"""Whose group the volumes are; to the images all users are the same."""
GPU = "nvidia.com/gpu"
LOST_SECONDS = 30
"""How long a pod stays on a node that is not ready or not reachable."""
TAKEN_OVER = ("nodeSelector", "runtimeClassName", "priorityClassName")
"""Fields of `scheduling` that are the pod's as they are."""
EXIT_SECONDS = 30
"""Beyond the drain: to write down what is held, and to end."""
STARTUP_SECONDS = 600
"""For a process to answer: the image's Python and torch from a cold disk. Weights are loaded after that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where one worker is to run, and with whose cache."""

    node: str | None = None
    """The node of its cache's claim; None leaves it to the scheduler."""
    claim: str | None = None
    """The node cache's claim."""
    avoided: tuple[str, ...] = ()
    """Nodes that it must not be on."""


def worker_name(key: PoolKey, pod: str) -> str:
    """The gateway's name of a worker."""
    return f"workers/{key.namespace}.{pod}"


def version_of(pod: Mapping[str, Any]) -> str:
    """The model version of a worker's pod; empty where it does not say."""
    arguments = [argument for one in pod["spec"].get("containers", []) for argument in one.get("args", [])]
    return next((text.removeprefix("--model=") for text in arguments if text.startswith("--model=")), "")


def pod_of(
    spec: PoolSpec,
    settings: OperatorSettings,
    *,
    name: str,
    image: str,
    model_version: str,
    revision: str,
    placement: Placement,
) -> Object:
    """A worker's pod, restricted in all that Pod Security looks at; its image's entrypoint takes a worker's flags."""
    key, scheduling = spec.key, spec.scheduling
    pod: Object = {
        "serviceAccountName": key.objects,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "subdomain": key.objects,
        "hostname": name,
        "terminationGracePeriodSeconds": spec.drain_seconds + EXIT_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(spec, settings, name, image, model_version)],
        "volumes": _volumes(spec, settings, placement),
        "tolerations": _tolerations(spec),
        **{field: scheduling[field] for field in TAKEN_OVER if field in scheduling},
    }
    if constraints := scheduling.get("topologySpreadConstraints"):
        ours = {"labelSelector": {"matchLabels": {POOL: key.name}}}
        pod["topologySpreadConstraints"] = [{**constraint, **ours} for constraint in constraints]
    if affinity := _affinity(scheduling.get("affinity", {}), placement):
        pod["affinity"] = affinity
    if settings.worker_image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret} for secret in settings.worker_image_pull_secrets]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": key.namespace,
            "labels": {**key.labels(), REVISION: revision},
            "annotations": {"kubectl.kubernetes.io/default-container": "worker"},
            "ownerReferences": [spec.reference],
        },
        "spec": pod,
    }


def _container(spec: PoolSpec, settings: OperatorSettings, name: str, image: str, model_version: str) -> Object:
    flags: dict[str, object] = {
        "host": "$(POD_IP)",
        "port": WORKER_PORT,
        "health-port": WORKER_HEALTH_PORT,
        "name": worker_name(spec.key, name),
        "uid": "$(POD_UID)",
        "pool": spec.key.pool,
        "model": model_version,
        "registry": settings.worker_registry or settings.registry,
        "cache": CACHE,
        "scratch": SCRATCH,
        "device": "cuda" if spec.gpus else "cpu",
        "drain-seconds": spec.drain_seconds,
    }
    if spec.vram_limit is not None:
        flags["vram-limit"] = _bytes(spec.vram_limit)
    mounts = [
        {"name": "cache", "mountPath": CACHE},
        {"name": "scratch", "mountPath": SCRATCH},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # a pod's own
    ]
    given = dict(sorted(settings.worker_settings.items()))
    arguments = [f"--{flag}={value}" for flag, value in flags.items()]  # which go before variables
    if settings.worker_tls_secret:
        arguments += [f"--tls-ca={TLS}/ca.crt", f"--tls-cert={TLS}/tls.crt", f"--tls-key={TLS}/tls.key"]
        mounts.append({"name": "tls", "mountPath": TLS, "readOnly": True})  # type: ignore[dict-item]
    else:
        arguments.append("--plaintext")
    return {
        "name": "worker",
        "image": image,
        "args": arguments,
        "env": [
            _downward("POD_UID", "metadata.uid"),
            _downward("POD_IP", "status.podIP"),
            *({"name": f"WAN22_WORKER_{name.upper()}", "value": value} for name, value in given.items()),
        ],
        "ports": [
            {"name": "grpc", "containerPort": WORKER_PORT},
            {"name": "health", "containerPort": WORKER_HEALTH_PORT},
        ],
        "startupProbe": {**_probe("live"), "periodSeconds": 2, "failureThreshold": STARTUP_SECONDS // 2},
        "readinessProbe": {**_probe("ready"), "periodSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {**_probe("live"), "periodSeconds": 10, "failureThreshold": 6},
        "resources": _resources(spec),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _downward(variable: str, path: str) -> Object:
    return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _probe(service: str) -> Object:
    return {"grpc": {"port": WORKER_HEALTH_PORT, "service": service}, "timeoutSeconds": 5}


def _resources(spec: PoolSpec) -> Object:
    wanted = {part: dict(spec.resources[part]) for part in ("requests", "limits") if spec.resources.get(part)}
    if spec.gpus:
        for part in ("requests", "limits"):
            wanted.setdefault(part, {})[GPU] = spec.gpus
    return wanted


def _volumes(spec: PoolSpec, settings: OperatorSettings, placement: Placement) -> list[Object]:
    claim = spec.cache.get("claimName") or placement.claim
    cache: Object
    if claim:
        cache = {"persistentVolumeClaim": {"claimName": claim}}
    else:
        template: Object = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": spec.cache.get("size", "150Gi")}},
        }
        if storage_class := spec.cache.get("storageClassName"):
            template["storageClassName"] = storage_class
        metadata = {"labels": spec.key.labels()}
        cache = {"ephemeral": {"volumeClaimTemplate": {"metadata": metadata, "spec": template}}}
    volumes: list[Object] = [
        {"name": "cache", **cache},
        {"name": "scratch", "emptyDir": {"sizeLimit": "20Gi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "2Gi"}},
    ]
    if settings.worker_tls_secret:
        volumes.append({"name": "tls", "secret": {"secretName": settings.worker_tls_secret, "defaultMode": 0o440}})
    return volumes


def _tolerations(spec: PoolSpec) -> list[Object]:
    own: list[Object] = [
        {"key": f"node.kubernetes.io/{condition}", "operator": "Exists", "effect": "NoExecute"}
        | {"tolerationSeconds": LOST_SECONDS}
        for condition in ("not-ready", "unreachable")
    ]
    if spec.gpus:
        own.append({"key": GPU, "operator": "Exists", "effect": "NoSchedule"})
    return [*own, *spec.scheduling.get("tolerations", [])]


def _affinity(given: Object, placement: Placement) -> Object:
    """The user's affinity, with the nodes added that this worker must be on, or must not be on."""
    fields: list[Object] = []
    if placement.node is not None:
        fields.append({"key": "metadata.name", "operator": "In", "values": [placement.node]})
    fields += [{"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in placement.avoided]
    if not fields:
        return given
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    nodes = given.get("nodeAffinity", {})
    terms: list[Any] = nodes.get(required, {}).get("nodeSelectorTerms", [{}])
    narrowed = [{**term, "matchFields": [*term.get("matchFields", []), *fields]} for term in terms]
    return {**given, "nodeAffinity": {**nodes, required: {"nodeSelectorTerms": narrowed}}}


UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
BINARY = {f"{unit.upper()}i": 1024**power for power, unit in enumerate(UNITS, 1)}


def _bytes(quantity: str) -> int:
    """The bytes of a Kubernetes quantity, which the CRD has validated."""
    for unit, factor in (BINARY | UNITS).items():
        if quantity.endswith(unit):
            return int(float(quantity.removesuffix(unit)) * factor)
    return int(float(quantity.removesuffix("m")) / 1000) if quantity.endswith("m") else int(float(quantity))
