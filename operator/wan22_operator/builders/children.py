"""The objects that a pool's workers share: a headless Service, a ServiceAccount, a NetworkPolicy."""

from __future__ import annotations

from wan22_operator.cluster import Object
from wan22_operator.names import (
    COMPONENT,
    GATEWAY,
    PART_OF,
    POOL,
    REGISTRY,
    WORKER_PORT,
)
from wan22_operator.resources import NETWORK_POLICY, SERVICE, SERVICE_ACCOUNT, Resource
from wan22_operator.settings import OperatorSettings
from wan22_operator.spec import PoolSpec

NAMESPACE = "kubernetes.io/metadata.name"
DNS_PORT = 53


def children_of(spec: PoolSpec, settings: OperatorSettings) -> list[tuple[Resource, Object]]:
    """All of them, with their kinds."""
    return [
        (SERVICE_ACCOUNT, service_account_of(spec)),
        (SERVICE, service_of(spec)),
        (NETWORK_POLICY, network_policy_of(spec, settings)),
    ]


def service_of(spec: PoolSpec) -> Object:
    """Headless, and with the addresses of workers that still load: the gateway shows how far they are."""
    body = {
        "type": "ClusterIP",
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {POOL: spec.key.name},
        "ports": [{"name": "grpc", "port": WORKER_PORT, "targetPort": "grpc", "protocol": "TCP"}],
    }
    return _object(spec, SERVICE, {"spec": body})


def service_account_of(spec: PoolSpec) -> Object:
    """Of no rights: a worker asks nothing of the cluster."""
    return _object(spec, SERVICE_ACCOUNT, {"automountServiceAccountToken": False})


def network_policy_of(spec: PoolSpec, settings: OperatorSettings) -> Object:
    """Only the gateway calls a worker; a worker calls the registry, and the cluster's DNS to find it."""
    registry_port = int((settings.worker_registry or settings.registry).rpartition(":")[2])
    body = {
        "podSelector": {"matchLabels": {POOL: spec.key.name}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [_pods(settings, GATEWAY)], "ports": [_port(WORKER_PORT)]}],
        "egress": [
            {"to": [_pods(settings, REGISTRY)], "ports": [_port(registry_port)]},
            {
                "to": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
                "ports": [_port(DNS_PORT), _port(DNS_PORT, "UDP")],
            },
        ],
    }
    return _object(spec, NETWORK_POLICY, {"spec": body})


def _pods(settings: OperatorSettings, component: str) -> Object:
    return {
        "namespaceSelector": {"matchLabels": {NAMESPACE: settings.namespace}},
        "podSelector": {"matchLabels": {PART_OF: "wan22", COMPONENT: component}},
    }


def _port(port: int, protocol: str = "TCP") -> Object:
    return {"protocol": protocol, "port": port}


def _object(spec: PoolSpec, resource: Resource, body: Object) -> Object:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {
            "name": spec.key.objects,
            "namespace": spec.key.namespace,
            "labels": spec.key.labels(),
            "ownerReferences": [spec.reference],
        },
        **body,
    }
