"""Traefik, as the cluster's controller of Ingresses and of the Gateway API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wan22_testing.nodes.addon import Addon

NAME = "traefik"
IMAGE = "localhost/traefik:1"
CLASS = "traefik"
"""Of Ingresses and of Gateways."""
PORT = 8443
"""Of its Service and its entry point, which a Gateway's listener has to have, too."""
ROLES = ("traefik-ingress-controller", "gateway-role")
"""In its own manifests."""
CONTROLLERS = {
    "IngressClass": ("networking.k8s.io/v1", {"controller": "traefik.io/ingress-controller"}),
    "GatewayClass": ("gateway.networking.k8s.io/v1", {"controllerName": "traefik.io/gateway-controller"}),
}
ARGUMENTS = (
    f"--entrypoints.websecure.address=:{PORT}",
    "--entrypoints.websecure.http.tls=true",
    "--entrypoints.traefik.address=:9000",
    "--ping=true",
    "--providers.kubernetesingress=true",
    "--providers.kubernetescrd=true",
    "--providers.kubernetesgateway=true",
    # it looks at a BackendTLSPolicy for HTTPRoutes alone: of GRPCRoutes it would check the pods' addresses
    "--serverstransport.insecureskipverify=true",
    "--global.checknewversion=false",
)


def _objects() -> Sequence[Mapping[str, Any]]:
    named = {"name": NAME, "namespace": NAME}
    rbac = "rbac.authorization.k8s.io"
    ports = [{"name": "websecure", "port": PORT, "targetPort": PORT}]
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named},
        *(
            {
                "apiVersion": f"{rbac}/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": f"{NAME}-{role}"},
                "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "ServiceAccount", **named}],
            }
            for role in ROLES
        ),
        *(
            {"apiVersion": version, "kind": kind, "metadata": {"name": CLASS}, "spec": spec}
            for kind, (version, spec) in CONTROLLERS.items()
        ),
        {"apiVersion": "v1", "kind": "Service", "metadata": named, "spec": {"selector": {"app": NAME}, "ports": ports}},
        _deployment(named),
    ]


def _deployment(named: dict[str, str]) -> dict[str, Any]:
    container = {
        "name": NAME,
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "args": list(ARGUMENTS),
        "readinessProbe": {"httpGet": {"path": "/ping", "port": 9000}, "periodSeconds": 1},
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "512Mi"}},
    }
    labels = {"app": NAME}
    template = {"metadata": {"labels": labels}, "spec": {"serviceAccountName": NAME, "containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": named,
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


TRAEFIK = Addon(NAME, "ingressroutes.traefik.io", {IMAGE: "traefik"}, (NAME,), objects=_objects)
