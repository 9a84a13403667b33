"""All nodes of a test cluster, in one thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

from wan22_testing.process_kubelet.nodes import Nodes

T = TypeVar("T")
COMMAND_SECONDS = 30.0


class ProcessKubelet:
    """The nodes of a control plane; use as a context manager. All processes end with it, however it ends.

    It takes what Nodes takes.
    """

    def __init__(self, kubeconfig: Path, folder: Path, **nodes: Any) -> None:
        self.folder = folder
        self._nodes = Nodes(kubeconfig, folder, **nodes)
        self._loop = asyncio.new_event_loop()
        self._registered = asyncio.Event()
        self._stopped = asyncio.Event()
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="process-kubelet", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(COMMAND_SECONDS)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(COMMAND_SECONDS)
        self._loop.close()
        if self._failure is not None:
            raise self._failure

    def kill_node(self, name: str) -> None:
        """Turns a machine off: its processes are killed, and nothing is heard of it until `restore_node`."""
        self._do(self._nodes.by_name[name].kill())

    def cut_off_node(self, name: str) -> None:
        """Takes a machine's network away: its processes go on, and nothing is heard of it until `restore_node`."""
        self._loop.call_soon_threadsafe(self._nodes.by_name[name].cut_off)

    def restore_node(self, name: str) -> None:
        """Lets a machine come back."""
        self._do(self._nodes.by_name[name].restore())

    def pid(self, namespace: str, pod: str) -> int | None:
        """Process id of a pod's first container, while it runs."""
        return self._do(self._pid(namespace, pod))

    async def _pid(self, namespace: str, pod: str) -> int | None:
        for node in self._nodes.by_name.values():
            for each in node.pods.values():
                meta = each.object["metadata"]
                if (meta["namespace"], meta["name"]) == (namespace, pod) and each.containers:
                    return each.containers[0].pid
        return None

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(COMMAND_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:  # noqa: BLE001  # told by __enter__, in its thread
            self._failure = error
        finally:
            self._started.set()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())

    async def _serve(self) -> None:
        running = asyncio.create_task(self._nodes.run(self._registered, self._stopped))
        registered = asyncio.create_task(self._registered.wait())
        await asyncio.wait([running, registered], return_when=asyncio.FIRST_COMPLETED)
        if self._registered.is_set():
            self._started.set()
        registered.cancel()
        await running
