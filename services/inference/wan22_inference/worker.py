"""One worker: its model, the attempts it holds, and when it takes new ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Self

from wan22.errors import FailedPrecondition, Reason, Unavailable
from wan22.loras import RequestedLora
from wan22.parameters import Parameters, RequestedParameters, resolve
from wan22.recipe import numerics_digest
from wan22.variants import Variant
from wan22_inference.attempts import AttemptBook, AttemptKey, Fence, HeldAttempt, Phase
from wan22_inference.inputs import Inputs
from wan22_inference.jobs import Failed, Job
from wan22_inference.renderer import Renderer, Rendering
from wan22_inference.scratch import Scratch

log = logging.getLogger(__name__)

EXPIRY_INTERVAL = 1.0
"""Seconds between looks for outcomes that nobody came back for."""


@dataclass(frozen=True)
class Identity:
    """Who the worker is."""

    name: str
    uid: str
    pool: str
    incarnation: str

    @classmethod
    def make(cls, name: str, uid: str, pool: str) -> Self:
        """A new process's identity; the uid is the name when empty."""
        return cls(name, uid or name, pool, str(uuid.uuid4()))


@dataclass(frozen=True)
class Following:
    """One stream's hold on an attempt."""

    held: HeldAttempt
    job: Job
    stream: int

    @property
    def displaced(self) -> bool:
        """True once a newer owner or stream has come."""
        return self.held.stream != self.stream


class Worker:
    """Runs attempts one at a time, prepares the next one meanwhile, and keeps their outcomes.

    Use as an async context manager; all on one event loop.
    """

    def __init__(self, identity: Identity, renderer: Renderer, scratch: Scratch, orphan_grace: float) -> None:
        """`orphan_grace` are the seconds for which an outcome is kept when nobody follows or releases it."""
        self.identity = identity
        self.renderer = renderer
        self.draining = False
        self.changed = renderer.changed
        """Notified when the model is loaded or fails to, when an attempt begins, ends or goes, and at a drain."""
        self._scratch = scratch
        self._book = AttemptBook(orphan_grace)
        self._jobs: dict[AttemptKey, Job] = {}
        self._next: Job | None = None
        """Of the prepared attempt; read by the thread that computes."""
        self._background: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = await asyncio.TaskGroup().__aenter__()
        self._background = [self._tasks.create_task(self.renderer.load()), self._tasks.create_task(self._expire())]
        return self

    async def __aexit__(self, *error: object) -> None:
        self.renderer.stop_loading()
        for task in self._background:
            task.cancel()
        for job in self._jobs.values():
            job.stop()
        await self._tasks.__aexit__(*error)  # type: ignore[arg-type]  # passed on as they came
        await self.renderer.close()

    @property
    def held(self) -> tuple[HeldAttempt, ...]:
        """The attempts held."""
        return self._book.held

    @property
    def busy(self) -> bool:
        """True while the work of an attempt is under way."""
        return self._book.busy

    @property
    def ready(self) -> bool:
        """True while new attempts are taken, or would be if none ran."""
        return self.renderer.variant is not None and not self.draining

    def drain(self) -> None:
        """Takes no new attempt from now on, and gives the prepared one back."""
        if not self.draining:
            log.info("Draining: no new attempt is taken.")
        self.draining = True
        withdrawn = self._book.withdraw_prepared()
        if withdrawn is not None:
            self._drop(withdrawn)
        self.changed.notify()

    async def until_empty(self, timeout: float) -> None:  # noqa: ASYNC109  # a limit on patience, not on a call
        """Returns when no attempt is held, or after `timeout` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._book.held:
                    await self.changed.wait()

    async def open(
        self,
        generation: str,
        fence: Fence,
        version: str,
        parameters: Parameters,
        inputs: Inputs,
        receive: Callable[[], Awaitable[None]],
        *,
        may_prepare: bool,
    ) -> Following:
        """Re-attaches to an attempt that is held, else starts it, or prepares it beside a running one if it may.

        `receive` fills the inputs with what the caller sends, and may take a while; a re-attached attempt needs none.

        Raises Aborted for a stale owner, Unavailable while busy, loading or draining, FailedPrecondition for another
        model version, a released attempt or a checkpoint of other numerics, InvalidRequest for parameters that the
        variant refuses, and what Renderer.prepare raises.
        """
        key = AttemptKey(generation, fence.number)
        self._observe(generation, fence)
        rendering: Rendering | None = None
        if self._book.find(key) is None:
            self._check_start(key, version, parameters, may_prepare=may_prepare)
            self._check_numerics(inputs)
            await receive()
            rendering = await self.renderer.prepare(parameters, inputs)
        else:
            await receive()
        self._observe(generation, fence)  # somebody newer may have come meanwhile
        held = self._book.find(key)
        if held is None:
            self._check_start(key, version, parameters, may_prepare=may_prepare)
            if rendering is None:
                raise Unavailable(f"{key} was let go while the call came in: try again.")
            held = self._book.begin(generation, fence, may_prepare=may_prepare)
            self._start(held, Job(rendering, self._scratch.make_folder()))
        job = self._jobs[key]
        following = Following(held, job, self._book.attach(held))
        job.changed.notify()
        return following

    def leave(self, following: Following) -> None:
        """Takes note that a stream has ended; the work goes on."""
        self._book.detach(following.held, following.stream, time.monotonic())

    def cancel(self, generation: str, fence: Fence) -> None:
        """Stops an attempt at its next step, and forgets a prepared one.

        Raises Aborted for a stale owner, NotFound when it is not held.
        """
        self._observe(generation, fence)
        held = self._book.cancel(AttemptKey(generation, fence.number))
        if held.cancel_requested:
            log.info("Cancelling %s.", held.key)
            self._jobs[held.key].stop()
        elif held.phase is Phase.WITHDRAWN:
            self._drop(held)

    async def release(self, generation: str, fence: Fence) -> None:
        """Forgets an outcome. Raises Aborted for a stale owner, FailedPrecondition while the attempt runs."""
        self._observe(generation, fence)
        held = self._book.release(AttemptKey(generation, fence.number))
        if held is not None:
            await self._forget(held)

    def _observe(self, generation: str, fence: Fence) -> None:
        displaced = self._book.observe(generation, fence)
        if displaced is not None:
            log.info("%s gives way to attempt %d.", displaced.key, fence.number)
            self._jobs[displaced.key].stop()
            if displaced.phase is Phase.WITHDRAWN:
                self._drop(displaced)
            elif not displaced.running:
                self._tasks.create_task(self._forget(displaced))
        for job in self._jobs.values():
            job.changed.notify()  # a stream may be displaced

    def _check_start(self, key: AttemptKey, version: str, parameters: Parameters, *, may_prepare: bool) -> None:
        if self.draining:
            raise draining()
        renderer = self.renderer
        if renderer.version and version != renderer.version:
            raise FailedPrecondition(
                f"model_version is {version!r}, but the worker holds {renderer.version}: use another one.",
                reason=Reason.WRONG_VERSION,
            )
        if renderer.variant is None:
            left = renderer.bytes_total - renderer.bytes_loaded
            raise Unavailable(f"The worker is loading its model, {left} bytes are left.", reason=Reason.WORKER_LOADING)
        self._book.check_place(key, may_prepare=may_prepare)
        _check_parameters(renderer.variant, parameters)

    def _check_numerics(self, inputs: Inputs) -> None:
        own = numerics_digest(self.renderer.numerics)
        if inputs.resume is not None and inputs.resume.numerics_digest != own:
            text = (
                f"The checkpoint was made by numerics {inputs.resume.numerics_digest}, the worker's are {own}: start "
            )
            raise FailedPrecondition(f"{text}at step 0, or use another worker.", reason=Reason.OTHER_NUMERICS)

    def _start(self, held: HeldAttempt, job: Job) -> None:
        self._jobs[held.key] = job
        if held.prepared:
            log.info("%s is prepared.", held.key)
            self._next = job
            self._tasks.create_task(asyncio.to_thread(job.prepare_on_host))
        else:
            self._tasks.create_task(self._run(held, job))
        self.changed.notify()

    def _start_next(self) -> None:
        held = self._book.start_next()
        if held is not None:
            job, self._next = self._jobs[held.key], None
            self._tasks.create_task(self._run(held, job))
            job.changed.notify()

    async def _run(self, held: HeldAttempt, job: Job) -> None:
        started = time.monotonic()
        log.info("%s starts.", held.key)

        def leave_device() -> None:
            self._book.leave_device(held)
            self._start_next()

        await job.run(self._prepare_next, leave_device)
        log.info("%s ends as %s after %.1f s.", held.key, type(job.outcome).__name__, time.monotonic() - started)
        if isinstance(job.outcome, Failed):
            log.warning("%s failed: %s", held.key, job.outcome.error.message)
        over = self._book.end(held, time.monotonic())
        self._start_next()
        if over:
            await self._forget(held)
        self.changed.notify()

    def _prepare_next(self) -> None:
        """Runs in the thread that computes, between steps of the running attempt."""
        job = self._next
        if job is not None:
            job.prepare_on_device()

    def _drop(self, withdrawn: HeldAttempt) -> None:
        log.info("%s is withdrawn before it started.", withdrawn.key)
        self._next = None
        self._jobs[withdrawn.key].changed.notify()
        self._tasks.create_task(self._forget(withdrawn))

    async def _forget(self, held: HeldAttempt) -> None:
        job = self._jobs.pop(held.key)
        await self._scratch.remove(job.folder)
        self.changed.notify()

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(EXPIRY_INTERVAL)
            for held in self._book.expire(time.monotonic()):
                log.warning("%s was neither followed nor released for the orphan grace: it is forgotten.", held.key)
                if held.phase is Phase.WITHDRAWN:
                    self._drop(held)
                else:
                    await self._forget(held)


def draining() -> Unavailable:
    """Why a worker that leaves takes no attempt, and gives the prepared one back."""
    return Unavailable("The worker is draining: use another one.", reason=Reason.WORKER_DRAINING)


def _check_parameters(variant: Variant, parameters: Parameters) -> None:
    """Raises InvalidRequest for parameters that the variant's rules refuse, whoever let them through."""
    requested = dict(vars(parameters))
    requested["loras"] = tuple(RequestedLora(**vars(lora)) for lora in parameters.loras)
    resolve(variant, RequestedParameters(**requested), image_size=None, draw_seed=lambda: parameters.seed)
