"""kube-router, which enforces NetworkPolicies."""

from __future__ import annotations

from wan22_testing.cluster.component import Component
from wan22_testing.cluster.control_plane import SERVICE_ADDRESSES
from wan22_testing.nodes.layout import Layout, NodePlace, node_programs

HEALTH_PORT = 20244


def firewall(layout: Layout, place: NodePlace) -> Component:
    """The node's, of kube-router's parts only that one. It takes a podCIDR in the node's spec."""
    flags = {
        "kubeconfig": layout.kubeconfig_of("kube-router"),
        "run-firewall": "true",
        "run-router": "false",
        "run-service-proxy": "false",
        "run-loadbalancer": "false",
        "enable-cni": "false",
        "service-cluster-ip-range": SERVICE_ADDRESSES,
        "hostname-override": place.name,
        "health-port": HEALTH_PORT,
        "iptables-sync-period": "1m",
    }
    program = node_programs().path("kube-router")
    return Component(program, place.folder / "kube-router.log", flags, port=HEALTH_PORT, health="/healthz")
