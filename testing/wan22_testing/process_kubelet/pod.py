"""One pod on a node, from its binding to the end of its object."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from wan22_testing.cluster.api import STRATEGIC, Api, ApiError, Object
from wan22_testing.process_kubelet.container import Container, now
from wan22_testing.process_kubelet.environment import command_of, environment_of
from wan22_testing.process_kubelet.images import Images
from wan22_testing.process_kubelet.pod_status import status_of
from wan22_testing.process_kubelet.probe import Place
from wan22_testing.process_kubelet.volumes import NotPlayed, NotYet, make_volumes, mounts_of, remove_volumes

log = logging.getLogger(__name__)
RETRY_SECONDS = 0.3
"""Between looks at what a pod waits for, and after an API server's failure."""
ENDED = {"Succeeded", "Failed"}


@dataclass(frozen=True)
class Surroundings:
    """What a pod needs of its node."""

    api: Api
    images: Images
    folder: Path
    """Of the node."""
    host: str
    """The node's address."""
    backoff_seconds: float
    online: Callable[[], Awaitable[object]]
    """Returns once the node can reach the API server."""


class Pod:
    """Runs one pod. `observe` brings what the API server has of it; `run` does the rest, and may be cancelled."""

    def __init__(self, pod: Object, address: str, around: Surroundings) -> None:
        self.object = pod
        self.address = address
        self.containers: list[Container] = []
        self._first: list[Container] = []
        self._around = around
        self._folder = around.folder / pod["metadata"]["uid"]
        self._changed = asyncio.Event()
        self._gone = False
        self._waiting = ""
        self._not_played: Object = {}
        self._started = now()
        self._running: set[asyncio.Task[None]] = set()
        self._before = _have_run(pod)

    @property
    def _path(self) -> str:
        meta = self.object["metadata"]
        return f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"

    @property
    def _leaves(self) -> bool:
        return self._gone or bool(self.object["metadata"].get("deletionTimestamp"))

    def observe(self, pod: Object, *, gone: bool = False) -> None:
        """Takes a newer state of its object; `gone` once there is none."""
        self._take(pod)
        self._gone = self._gone or gone
        self._notify()

    def _take(self, pod: Object) -> None:
        """What is older than what was written last would have it written again, and again where watches are late."""
        if int(pod["metadata"]["resourceVersion"]) >= int(self.object["metadata"]["resourceVersion"]):
            self.object = pod

    def kill(self) -> None:
        """SIGKILL to all its processes at once."""
        for container in (*self._first, *self.containers):
            container.kill()

    async def run(self) -> None:
        """Starts its containers, keeps its status true, and ends it when its object is deleted."""
        try:
            reporting = asyncio.create_task(self._report())
            try:
                await self._live()
                await self._terminate()
            finally:
                reporting.cancel()
                with suppress(asyncio.CancelledError):
                    await reporting
            await self._finish()
        finally:
            self.kill()
            if self._running:
                await asyncio.wait(self._running)

    async def _live(self) -> None:
        """Returns when it is to end."""
        if self.object["status"].get("phase") in ENDED or self._leaves:
            await self._until(lambda: self._leaves)  # it ran already, before its node did again
            return
        made = await self._make()
        if made is None:
            return
        self._first, containers = made
        for container in self._first:
            self._start(container)
            await self._until(lambda container=container: container.ended or self._leaves)  # type: ignore[misc]
            if self._leaves or container.exit_code:
                break
        else:
            self.containers = containers
            for container in containers:
                self._start(container)
        await self._until(lambda: self._leaves)

    def _start(self, container: Container) -> None:
        self._running.add(asyncio.create_task(container.run()))
        self._notify()

    async def _make(self) -> tuple[list[Container], list[Container]] | None:
        """Its containers, once all that they need is there; None when it is to end before."""
        while not self._leaves:
            try:
                _check_played(self.object)
                await self._around.online()
                volumes = await make_volumes(self.object, self._folder, self._around.api)
                spec = self.object["spec"]
                return (
                    [await self._container(each, volumes, "OnFailure") for each in spec.get("initContainers", [])],
                    [await self._container(each, volumes) for each in spec["containers"]],
                )
            except NotPlayed as error:
                await self._fail(str(error))
            except (NotYet, ApiError, KeyError) as error:
                reason = str(error) if isinstance(error, NotYet) else f"{type(error).__name__}: {error}"
                log.info("%s waits: %s", self._path, reason)
            with suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS):
                    await self._until(lambda: self._leaves)
        return None

    async def _container(self, spec: Object, volumes: dict[str, Path], policy: str = "") -> Container:
        image = self._around.images.find(spec["image"])
        if image is None:
            self._waiting = "ErrImagePull"
            self._notify()
            raise NotYet(f"no program plays image {spec['image']}")
        self._waiting = ""
        mounts = mounts_of(spec, volumes)
        pod = {**self.object, "status": {**self.object["status"], "podIP": self.address, "hostIP": self._around.host}}
        environment = await environment_of(spec, pod, image, self._around.api, mounts)
        ports = {port["name"]: port["containerPort"] for port in spec.get("ports", []) if "name" in port}
        wanted = self.object["spec"].get("restartPolicy", "Always")
        self._folder.mkdir(parents=True, exist_ok=True)
        return Container(
            spec,
            command=command_of(spec, pod, image, environment, mounts),
            hosted=image.hosted,
            place=Place(self.address, ports, environment),
            folder=self._folder / "containers" / spec["name"],
            log=self._around.folder / f"{self.object['metadata']['name']}.{spec['name']}.log",
            restart_policy=wanted if not policy or wanted == "Never" else policy,
            backoff_seconds=self._around.backoff_seconds,
            grace_seconds=self.object["spec"].get("terminationGracePeriodSeconds", 30),
            known=self._before.get(spec["name"]),
            changed=self._notify,
        )

    async def _terminate(self) -> None:
        """SIGTERM, and SIGKILL when the grace is over; a grace that is shortened meanwhile counts from the start."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        running = [container for container in (*self._first, *self.containers) if not container.ended]
        for container in running:
            container.terminate()
        while not all(container.ended for container in running):
            grace = 0 if self._gone else self.object["metadata"].get("deletionGracePeriodSeconds", 0)
            left = began + grace - loop.time()
            if left <= 0:
                self.kill()
                await asyncio.wait(self._running)
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wait()

    async def _finish(self) -> None:
        """Writes the last status and lets the object go."""
        remove_volumes(self._folder)
        while not self._gone:
            await self._around.online()
            try:
                if self.containers:
                    await self._write(self._status())
                uid = self.object["metadata"]["uid"]
                options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
                await self._around.api.delete(self._path, options)
            except ApiError as error:
                if error.code in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:
                    return
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _fail(self, message: str) -> None:
        self._not_played = {
            "phase": "Failed",
            "reason": "NotPlayed",
            "message": f"The process kubelet does not play {message}.",
        }
        self._notify()
        await self._until(lambda: self._leaves)

    def _status(self) -> Object:
        status = status_of(
            self.object,
            address=self.address,
            host=self._around.host,
            started=self.object["status"].get("startTime") or self._started,
            first=self._first,
            containers=self.containers,
            waiting=self._waiting,
        )
        return status | self._not_played

    async def _report(self) -> None:
        """Writes the status whenever it is another one."""
        written: Object | None = None
        await self._until(lambda: bool(not self._before or self.containers or self._leaves))
        while True:
            if self.object["status"].get("phase") in ENDED and not self.containers:
                return  # what it came to is written
            status = self._status()
            if status == written:
                await self._wait()
                continue
            await self._around.online()
            try:
                await self._write(status)
                written = status
            except ApiError as error:
                if error.code == HTTPStatus.NOT_FOUND:
                    return
                log.warning("%s: its status is written again: %s", self._path, error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _write(self, status: Object) -> None:
        change = {"metadata": {"uid": self.object["metadata"]["uid"]}, "status": status}
        self._take(await self._around.api.patch(f"{self._path}/status", change, STRATEGIC))

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()  # each change wakes all who wait now

    async def _wait(self) -> None:
        await self._changed.wait()


def _have_run(pod: Object) -> dict[str, Object]:
    """The status, by name, of containers that have run before, on a node that was lost since."""
    status = pod["status"]
    statuses = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return {known["name"]: known for known in statuses if "waiting" not in known["state"]}


def _check_played(pod: Object) -> None:
    spec = pod["spec"]
    for container in (*spec.get("initContainers", []), *spec["containers"]):
        if container.get("lifecycle"):
            raise NotPlayed(f"lifecycle hooks (container {container['name']})")
        if container.get("envFrom"):
            raise NotPlayed(f"envFrom (container {container['name']})")
    if any(container.get("restartPolicy") for container in spec.get("initContainers", [])):
        raise NotPlayed("sidecars")
    if spec.get("hostNetwork"):
        raise NotPlayed("hostNetwork")
