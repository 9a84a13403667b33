"""A process's HTTP port: /metrics for Prometheus, /health and /ready, answered from threads of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from wan22.errors import FailedPrecondition, Reason
from wan22.health import Health
from wan22.server import Server

log = logging.getLogger(__name__)
REQUEST_SECONDS = 10.0
"""How long a caller may take over its request."""


def process_metrics() -> CollectorRegistry:
    """Metrics that say how the process itself is: memory, descriptors, CPU, garbage collections. Add yours."""
    metrics = CollectorRegistry()
    ProcessCollector(registry=metrics)
    PlatformCollector(registry=metrics)
    GCCollector(registry=metrics)
    return metrics


class MetricsServer:
    """Serves while its context lasts; `port` is the bound port.

    /health and /ready are 200 or 503, by what `live` and `ready` say; both are called from other threads, and so are
    the collectors of `metrics`. Raises FailedPrecondition (BAD_SETTING) for a port that is taken.
    """

    def __init__(
        self,
        metrics: CollectorRegistry,
        *,
        host: str,
        port: int,
        live: Callable[[], bool],
        ready: Callable[[], bool],
    ) -> None:
        answers: dict[str, Callable[[], tuple[HTTPStatus, bytes, str]]] = {
            "/metrics": lambda: (HTTPStatus.OK, generate_latest(metrics), CONTENT_TYPE_PLAIN_0_0_4),
            "/health": lambda: _state(live(), "live"),
            "/ready": lambda: _state(live() and ready(), "ready"),
        }

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_SECONDS

            def do_GET(self) -> None:  # the base class asks for it
                answer = answers.get(self.path.partition("?")[0])
                code, body, kind = answer() if answer else _unknown(self.path)
                self.send_response(code)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # a scrape is no event
                pass

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            text = f"HTTP port {port} of {host} cannot be listened on ({error.strerror}): choose another."
            raise FailedPrecondition(text, reason=Reason.BAD_SETTING) from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def serving_metrics(
    server: Server | Health, metrics: CollectorRegistry, host: str, port: int | None
) -> Iterator[int | None]:
    """Gives a process its HTTP port while the context lasts, if the settings name one; the bound port."""
    if port is None:
        yield None
        return
    with MetricsServer(
        metrics, host=host, port=port, live=lambda: server.live, ready=lambda: server.ready
    ) as metrics_server:
        log.info("Metrics are at http://%s:%d/metrics.", host, metrics_server.port)
        yield metrics_server.port


def _state(well: bool, word: str) -> tuple[HTTPStatus, bytes, str]:  # noqa: FBT001
    code, text = (HTTPStatus.OK, word) if well else (HTTPStatus.SERVICE_UNAVAILABLE, f"not {word}")
    return code, f"{text}\n".encode(), "text/plain; charset=utf-8"


def _unknown(path: str) -> tuple[HTTPStatus, bytes, str]:
    text = f"{path[:200]!r} is not here: use /metrics, /health or /ready.\n"
    return HTTPStatus.NOT_FOUND, text.encode(), "text/plain; charset=utf-8"
