"""kube-proxy, by which Services are reached."""

from __future__ import annotations

import json

from wan22_testing.cluster.component import Component
from wan22_testing.nodes.layout import POD_ADDRESSES, Layout, NodePlace, node_programs

HEALTH_PORT = 10256


def service_proxy(layout: Layout, place: NodePlace) -> Component:
    """The node's kube-proxy."""
    config = place.folder / "kube-proxy.json"
    settings = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clusterCIDR": POD_ADDRESSES,
        "hostnameOverride": place.name,
        "healthzBindAddress": f"127.0.0.1:{HEALTH_PORT}",
        "clientConnection": {"kubeconfig": str(layout.kubeconfig_of("system-kube-proxy"))},
        # the kernel's table belongs to the whole machine, and stays as it is
        "conntrack": {"maxPerCore": 0, "min": 0},
    }
    config.write_text(json.dumps(settings, indent=1))
    program = node_programs().path("kube-proxy")
    log = place.folder / "kube-proxy.log"
    return Component(program, log, {"config": config}, port=HEALTH_PORT, health="/livez")
