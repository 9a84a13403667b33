"""What the chart gives a service is what the service takes: settings, keys, certificates, and the operator's labels."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography import x509

from wan22.settings import Settings
from wan22_gateway.identity.declared import Declared
from wan22_gateway.identity.keys import digest, id_of, is_well_formed
from wan22_gateway.settings import GatewaySettings
from wan22_operator.caches import PORT as CACHE_PORT
from wan22_operator.caches import VOLUME
from wan22_operator.names import COMPONENT, GATEWAY, NODE_CACHE, PART_OF, REGISTRY, WORKER, WORKER_PORT
from wan22_operator.settings import OperatorSettings
from wan22_registry.node_cache.settings import NodeCacheSettings
from wan22_registry.settings import RegistrySettings
from wan22_testing.chart import EXAMPLES, Chart
from wan22_testing.pod_policy import pods

SERVICES: dict[str, type[Settings]] = {
    "Deployment/wan22-gateway": GatewaySettings,
    "StatefulSet/wan22-registry": RegistrySettings,
    "StatefulSet/wan22-node-cache": NodeCacheSettings,
    "Deployment/wan22-operator": OperatorSettings,
    "Job/wan22-migration": GatewaySettings,
}
Objects = list[dict[str, Any]]
ROUTES = ("--set=gateway.routes.enabled=true", "--set=gateway.routes.parentRefs[0].name=public")


@pytest.fixture(scope="module")
def cluster(chart: Chart) -> Objects:
    return chart.example(EXAMPLES / "gpu-cluster-nvme.yaml")


@pytest.fixture(scope="module")
def production(chart: Chart) -> Objects:
    return chart.example(EXAMPLES / "production.yaml")


def named(objects: Objects, kind: str, name: str) -> dict[str, Any]:
    (found,) = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def settings_of(objects: Objects, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the service reads of the environment that its pod gets."""
    pod = dict(pods(objects))[name]
    for variable in pod["containers"][0]["env"]:
        monkeypatch.setenv(variable["name"], variable.get("value", "given"))
    return SERVICES[name].load(name, [])


@pytest.mark.parametrize("name", [name for name in SERVICES if "migration" not in name])
def test_each_service_takes_the_settings_of_its_pod(
    cluster: Objects, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(cluster, name, monkeypatch)
    assert settings.host == "0.0.0.0"  # noqa: S104
    assert settings.tls is not None
    assert str(settings.tls.cert) == "/etc/wan22/tls/tls.crt"


@pytest.mark.parametrize("name", ["Deployment/wan22-gateway", "Job/wan22-migration"])
def test_gateways_and_the_migration_have_the_same_store(
    production: Objects, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(production, name, monkeypatch)
    assert settings.store.startswith("postgresql://wan22@postgres.databases:5432/wan22?")
    assert str(settings.store_password_file) == "/etc/wan22/store/password"


def test_settings_keep_their_numbers_and_lists(
    cluster: Objects, production: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        assert settings_of(cluster, "StatefulSet/wan22-registry", patch).quota_bytes == 900_000_000_000
    with monkeypatch.context() as patch:
        assert settings_of(cluster, "StatefulSet/wan22-node-cache", patch).prefetch == ["wan2.2-t2v-a14b:fp8"]
    with monkeypatch.context() as patch:
        gateway = settings_of(production, "Deployment/wan22-gateway", patch)
    assert (gateway.queue_limit, gateway.video_retention_days, gateway.auth) == (5000, 30.0, "on")


def test_a_fraction_and_a_switch_arrive_as_they_are(chart: Chart, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = '--set-json=gateway.settings={"lease_seconds": 2.5, "reflection": true}'
    gateway = settings_of(chart.objects(flags), "Deployment/wan22-gateway", monkeypatch)
    assert (gateway.lease_seconds, gateway.reflection) == (2.5, True)


def test_settings_of_workers_reach_the_operator_as_text(chart: Chart, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = '--set-json=workers.settings={"checkpoint_seconds": 2.5, "threads": 4, "text_encoder": "host"}'
    operator = settings_of(chart.objects(flags), "Deployment/wan22-operator", monkeypatch)
    assert operator.worker_settings == {"checkpoint_seconds": "2.5", "threads": "4", "text_encoder": "host"}


def test_the_migration_runs_before_the_gateways_with_their_image(production: Objects, cluster: Objects) -> None:
    job = named(production, "Job", "wan22-migration")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    found = dict(pods(production))
    image = found["Deployment/wan22-gateway"]["containers"][0]["image"]
    assert found["Job/wan22-migration"]["containers"][0]["image"] == image
    assert "Job" not in {one["kind"] for one in cluster}


def test_an_sqlite_gateway_is_replaced_only_after_it_has_gone(cluster: Objects, production: Objects) -> None:
    assert named(cluster, "Deployment", "wan22-gateway")["spec"]["strategy"] == {"type": "Recreate"}
    claim = named(cluster, "PersistentVolumeClaim", "wan22-gateway")
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert named(production, "Deployment", "wan22-gateway")["spec"]["strategy"]["type"] == "RollingUpdate"
    assert "PersistentVolumeClaim" not in {one["kind"] for one in production}


def test_keys_made_at_install_are_good_at_the_gateway_and_known_to_the_operator(cluster: Objects) -> None:
    made = named(cluster, "Secret", "wan22-keys")["stringData"]
    declared = Declared.model_validate(json.loads(made["tenants.json"]))
    roles = {key.sha256: (key.roles, key.id) for key in declared.keys}
    for role in ("operator", "admin"):
        assert is_well_formed(made[role])
        assert roles[digest(made[role])] == ([role], id_of(made[role]))
    (operator,) = dict(pods(cluster))["Deployment/wan22-operator"]["containers"]
    given = {one["name"]: one.get("valueFrom") for one in operator["env"]}
    assert given["WAN22_OPERATOR_API_KEY"] == {"secretKeyRef": {"name": "wan22-keys", "key": "operator"}}


def test_certificates_made_at_install_name_their_roles_and_are_of_one_authority(cluster: Objects) -> None:
    def read(name: str, part: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate(base64.b64decode(named(cluster, "Secret", name)["data"][part]))

    authority = read("wan22-authority", "tls.crt")
    for role in ("gateway", "worker", "registry", "node-cache", "operator", "admin", "keda"):
        certificate = read(f"wan22-{role}-tls", "tls.crt")
        certificate.verify_directly_issued_by(authority)
        assert read(f"wan22-{role}-tls", "ca.crt") == authority
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = names.get_values_for_type(x509.DNSName)
        assert found[0] == role
        assert role == "gateway" or len(found) == 1
        if role == "gateway":
            assert {"wan22-gateway", "wan22-gateway.wan22.svc.cluster.local", "localhost"} <= set(found)


def test_cert_manager_is_asked_for_the_same_names(production: Objects) -> None:
    asked = {
        (one["metadata"]["namespace"], one["spec"]["secretName"]): one["spec"]["dnsNames"]
        for one in production
        if one["kind"] == "Certificate"
    }
    assert asked["wan22", "wan22-registry-tls"] == ["registry"]
    assert asked["video", "wan22-worker-tls"] == asked["wan22", "wan22-worker-tls"] == ["worker"]
    assert {"gateway", "wan22-gateway", "grpc.wan22.example.com"} <= set(asked["wan22", "wan22-gateway-tls"])


def test_without_an_issuer_cert_manager_gets_an_authority_of_the_release(chart: Chart) -> None:
    objects = chart.objects("--set=tls.mode=certManager")
    assert named(objects, "Certificate", "wan22-authority")["spec"]["isCA"] is True
    issuer = named(objects, "Certificate", "wan22-gateway-tls")["spec"]["issuerRef"]
    assert issuer == {"name": "wan22-authority", "kind": "Issuer", "group": "cert-manager.io"}


def test_an_authority_of_the_release_keeps_its_key_so_that_what_it_signed_before_stays_good(chart: Chart) -> None:
    objects = chart.objects("--set=tls.mode=certManager")
    assert named(objects, "Certificate", "wan22-authority")["spec"]["privateKey"]["rotationPolicy"] == "Never"


def test_who_routes_to_the_gateway_is_told_that_it_speaks_tls_and_by_which_authority(chart: Chart) -> None:
    objects = chart.objects(*ROUTES)
    policy = named(objects, "BackendTLSPolicy", "wan22-gateway")["spec"]
    service = named(objects, "Service", "wan22-gateway")["spec"]
    assert [(one["name"], one["sectionName"]) for one in policy["targetRefs"]] == [
        ("wan22-gateway", "grpc"),
        ("wan22-gateway", "http"),
    ]
    protocols = {port["name"]: port.get("appProtocol") for port in service["ports"]}
    assert protocols == {"grpc": "https", "http": "https", "health": None}
    certificate = named(objects, "Secret", "wan22-gateway-tls")["data"]
    names = x509.load_pem_x509_certificate(base64.b64decode(certificate["tls.crt"])).extensions
    assert policy["validation"]["hostname"] in names.get_extension_for_class(
        x509.SubjectAlternativeName
    ).value.get_values_for_type(x509.DNSName)
    (reference,) = policy["validation"]["caCertificateRefs"]
    authority = named(objects, reference["kind"], reference["name"])["data"]["ca.crt"]
    assert authority == base64.b64decode(certificate["ca.crt"]).decode()


def test_who_routes_to_a_gateway_without_tls_is_told_so(chart: Chart) -> None:
    objects = chart.objects(*ROUTES, "--set=tls.mode=off")
    assert not [one for one in objects if one["kind"] in {"BackendTLSPolicy", "ConfigMap"}]
    ports = named(objects, "Service", "wan22-gateway")["spec"]["ports"]
    assert [port.get("appProtocol") for port in ports] == ["kubernetes.io/h2c", "http", None]


def test_the_operator_finds_node_caches_by_label_port_and_claim(cluster: Objects) -> None:
    cache = named(cluster, "StatefulSet", "wan22-node-cache")["spec"]
    template = cache["template"]
    assert template["metadata"]["labels"][COMPONENT] == NODE_CACHE
    assert {"name": "grpc", "containerPort": CACHE_PORT} in template["spec"]["containers"][0]["ports"]
    assert [one["metadata"]["name"] for one in cache["volumeClaimTemplates"]] == [VOLUME]
    (term,) = template["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert named(cluster, "Service", "wan22-node-cache")["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("component", [GATEWAY, REGISTRY])
def test_pods_have_the_labels_by_which_workers_policies_know_them(cluster: Objects, component: str) -> None:
    kind = "Deployment" if component == GATEWAY else "StatefulSet"
    labels = named(cluster, kind, f"wan22-{component}")["spec"]["template"]["metadata"]["labels"]
    assert (labels[PART_OF], labels[COMPONENT]) == ("wan22", component)


def test_the_gateway_may_call_workers_of_every_namespace(cluster: Objects) -> None:
    peer = {"namespaceSelector": {}, "podSelector": {"matchLabels": {PART_OF: "wan22", COMPONENT: WORKER}}}
    allowed = named(cluster, "NetworkPolicy", "wan22-gateway")["spec"]["egress"]
    assert {"to": [peer], "ports": [{"port": WORKER_PORT}]} in allowed


def test_a_local_volume_is_bound_to_the_registry_of_its_node(cluster: Objects) -> None:
    volume = named(cluster, "PersistentVolume", "wan22-wan22-registry")["spec"]
    registry = named(cluster, "StatefulSet", "wan22-registry")
    (template,) = registry["spec"]["volumeClaimTemplates"]
    assert template["spec"]["storageClassName"] == volume["storageClassName"]
    assert volume["claimRef"]["name"] == f"{template['metadata']['name']}-{registry['metadata']['name']}-0"
    assert volume["local"] == {"path": "/mnt/nvme0/wan22-registry"}
