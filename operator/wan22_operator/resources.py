"""The kinds that the operator reads and writes, and where the API has them."""

from __future__ import annotations

from dataclasses import dataclass

GROUP, VERSION = "wan22.dev", "v1alpha1"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind and its collection."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """The URL's path of the collection, of an object in it, or of a subresource of that."""
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        place = f"/namespaces/{namespace}" if namespace else ""
        return "/".join(part for part in (f"{root}{place}/{self.plural}", name, subresource) if part)


WAN_POOL = Resource(f"{GROUP}/{VERSION}", "WanPool", "wanpools")
WAN_MODEL = Resource(f"{GROUP}/{VERSION}", "WanModel", "wanmodels")
POD = Resource("v1", "Pod", "pods")
NODE = Resource("v1", "Node", "nodes")
SERVICE = Resource("v1", "Service", "services")
SERVICE_ACCOUNT = Resource("v1", "ServiceAccount", "serviceaccounts")
CONFIG_MAP = Resource("v1", "ConfigMap", "configmaps")
NETWORK_POLICY = Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
LEASE = Resource("coordination.k8s.io/v1", "Lease", "leases")
EVENT = Resource("events.k8s.io/v1", "Event", "events")
