"""The external metrics API of a test cluster, with one metric: what a HorizontalPodAutoscaler asks."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self

from wan22_testing.cluster.certificates import KeyPair
from wan22_testing.cluster.kubectl import Kubectl

GROUP_VERSION = "external.metrics.k8s.io/v1beta1"
HOST = "localhost"
"""Its certificate's; an ExternalName service leads the API server there without any network of pods."""


class ExternalMetrics:
    """An API server behind the cluster's own, on a free port; use as a context manager.

    `value` is called at each question of an autoscaler, one at a time, and gives the metric's value.
    """

    def __init__(self, pair: KeyPair, metric: str, value: Callable[[], int]) -> None:
        self._metric = metric
        self._value = value
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = Thread(target=self._server.serve_forever, name="external-metrics")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def register(self, kubectl: Kubectl) -> None:
        """Has the cluster's API server pass its group on, and waits until it does."""
        metadata = {"name": "external-metrics", "namespace": "kube-system"}
        spec = {"type": "ExternalName", "externalName": HOST}
        kubectl.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
        group, version = GROUP_VERSION.split("/")
        name = f"{version}.{group}"
        service = {**metadata, "port": self._server.server_address[1]}
        registration = {
            "group": group,
            "version": version,
            "service": service,
            "insecureSkipTLSVerify": True,  # both ends are this test's
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        }
        api_service = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": name}}
        kubectl.apply({**api_service, "spec": registration})
        kubectl("wait", "--for=condition=Available", f"apiservice/{name}", "--timeout=30s")

    def _answer(self, path: str) -> dict[str, Any] | None:
        root = f"/apis/{GROUP_VERSION}"
        if path == root:
            resource = {"name": self._metric, "singularName": "", "namespaced": True}
            resource |= {"kind": "ExternalMetricValueList", "verbs": ["get"]}
            return {
                "kind": "APIResourceList",
                "apiVersion": "v1",
                "groupVersion": GROUP_VERSION,
                "resources": [resource],
            }
        if path.startswith(f"{root}/namespaces/") and path.endswith(f"/{self._metric}"):
            time = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            item = {"metricName": self._metric, "metricLabels": {}, "timestamp": time, "value": str(self._value())}
            return {
                "kind": "ExternalMetricValueList",
                "apiVersion": GROUP_VERSION,
                "metadata": {},
                "items": [item],
            }
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                found = answer(self.path.partition("?")[0])
                body = json.dumps(found or {"kind": "Status", "apiVersion": "v1", "status": "Failure"}).encode()
                self.send_response(HTTPStatus.NOT_FOUND if found is None else HTTPStatus.OK)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Says nothing: the tests assert."""

        return Handler
