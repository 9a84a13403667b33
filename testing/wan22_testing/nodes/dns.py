"""CoreDNS, as a Deployment of the cluster."""

from __future__ import annotations

from typing import Any

from wan22_testing.nodes.layout import DNS_ADDRESS, DOMAIN

IMAGE = "localhost/coredns:1"
NAME = "coredns"
NAMESPACE = "kube-system"
LABELS = {"k8s-app": "kube-dns"}
"""By which network policies know the cluster's DNS, on any cluster."""
COREFILE = f"""\
.:53 {{
  errors
  health
  ready
  kubernetes {DOMAIN} in-addr.arpa {{
    ttl 5
  }}
  cache 5
  reload
}}
"""


def manifests() -> dict[str, Any]:
    """A List of all that it takes."""
    named = {"name": NAME, "namespace": NAMESPACE}
    reads: list[dict[str, Any]] = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    rbac = "rbac.authorization.k8s.io"
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named},
            {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": NAME}, "rules": reads},
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": NAME},
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": NAME},
                "subjects": [{"kind": "ServiceAccount", **named}],
            },
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": named, "data": {"Corefile": COREFILE}},
            _service(),
            _deployment(named),
        ],
    }


def _service() -> dict[str, Any]:
    ports = [{"name": f"dns-{kind.lower()}", "port": 53, "protocol": kind} for kind in ("UDP", "TCP")]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": NAMESPACE, "labels": LABELS},
        "spec": {"clusterIP": DNS_ADDRESS, "selector": LABELS, "ports": ports},
    }


def _deployment(named: dict[str, str]) -> dict[str, Any]:
    container = {
        "name": NAME,
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
    }
    pod = {
        "serviceAccountName": NAME,
        "dnsPolicy": "Default",
        "priorityClassName": "system-cluster-critical",
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": NAME}}],
        # one a node, so that names are found while a node is down
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": {"matchLabels": LABELS},
            }
        ],
        "tolerations": [{"operator": "Exists"}],
    }
    template = {"metadata": {"labels": LABELS}, "spec": pod}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": named,
        "spec": {"replicas": 2, "selector": {"matchLabels": LABELS}, "template": template},
    }
