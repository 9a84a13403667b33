"""One attempt, seen from its owner: the stream to the worker, until the outcome is durable or somebody else owns it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path

import grpc

from wan22.errors import Aborted, InternalError, Reason, ResourceExhausted, Unavailable, UnknownError, Wan22Error
from wan22.parameter_messages import complete_from_message
from wan22.status import from_rpc_error
from wan22.v1 import generation_pb2, inference_pb2
from wan22_gateway import lifecycle, older_store, outcome, previews
from wan22_gateway.lifecycle import State
from wan22_gateway.media import MediaLibrary
from wan22_gateway.results import Results
from wan22_gateway.resumption import Resumption, Start
from wan22_gateway.spool import Spool
from wan22_gateway.store import claims
from wan22_gateway.store.claims import Claim, loss
from wan22_gateway.store.database import Database
from wan22_gateway.store.generations import GenerationRow
from wan22_gateway.worker_channels import WorkerChannels

log = logging.getLogger(__name__)
RETRY_SECONDS = 0.5
"""Pause before a broken stream is opened again."""
STEP_EVENT_SECONDS = 1.0
"""Steps become events at most this often, and previews are shown; stages always do."""
CALL_SECONDS = 5.0
"""Deadline of CancelAttempt and ReleaseAttempt."""
REFUSALS = {
    Reason.WORKER_BUSY: "BUSY",
    Reason.WORKER_LOADING: "LOADING",
    Reason.WORKER_DRAINING: "DRAINING",
    Reason.WRONG_VERSION: "BROKEN",
    Reason.OTHER_NUMERICS: "LOADING",  # it was started anew with other options: until it is asked again
}
"""What a worker that refuses an attempt is doing; such a refusal is no attempt."""
TRANSPORT = (Unavailable, UnknownError, InternalError)
"""What a stub raises when the connection, not the worker, failed."""


class _Next(Enum):
    """What follows the end of a stream."""

    DONE = auto()
    RETRY = auto()


class AttemptRunner:
    """Drives one claimed attempt. Cancelling `run` stops nothing on the worker."""

    def __init__(
        self,
        claim: Claim,
        database: Database,
        channels: WorkerChannels,
        results: Results,
        media: MediaLibrary,
        spool_folder: Path,
    ) -> None:
        self._claim = claim
        self._fence = claim.fence
        self._database = database
        self._stub = channels.stub(claim.address)
        self._results = results
        self._media = media
        self._spool = Spool(spool_folder / f"{self._fence.generation}-{self._fence.owner_epoch}")
        self._resumption = Resumption(database, results, self._fence, self._spool.path.with_suffix(".checkpoint"))
        self._start = Start(None, 0)
        self._unsent: Wan22Error | None = None
        """Why what the worker needs could not be read from the result store."""
        self._attempt = inference_pb2.Attempt(
            generation=f"generations/{self._fence.generation}",
            number=self._fence.attempt,
            owner_epoch=self._fence.owner_epoch,
        )
        self._last_step_event = self._last_preview = 0.0
        self._refused_preview = False
        self._prepared = self._started = False
        """What the worker has said of it."""

    async def run(self) -> None:
        """Returns when the outcome is durable, the claim was given back, or a newer owner has taken over."""
        row = await self._database.read(outcome.row_of, self._fence)
        if row is None:
            return
        stream = asyncio.create_task(self._follow(row))
        supervisor = asyncio.create_task(self._supervise())
        try:
            await asyncio.wait({stream, supervisor}, return_when=asyncio.FIRST_COMPLETED)
            if not stream.done() and not supervisor.result():
                await asyncio.wait({stream}, timeout=CALL_SECONDS)  # for its last words, the release
            if stream.done():
                stream.result()
        finally:
            stream.cancel()
            supervisor.cancel()
            await asyncio.gather(stream, supervisor, return_exceptions=True)
            self._spool.remove()
            self._resumption.remove()

    async def _supervise(self) -> bool:
        """Carries out a cancel. True after the worker's loss was recorded, False once the claim is over otherwise."""
        with self._database.listen(f"generation/{self._fence.generation}", self._claim.worker) as wake:
            while True:
                wake.clear()
                row = await self._database.read(outcome.row_of, self._fence)
                gone = await self._database.read(loss, self._claim)
                if row is None:
                    if self._prepared and not self._started:
                        await self._take_back()
                    return False
                if gone is not None:
                    log.warning("generations/%s: %s.", self._fence.generation, gone.reason)
                    await self._database.write(outcome.lost, self._claim, gone)
                    return True
                if row.cancel_requested_time is not None or await self._database.read(outcome.is_late, row):
                    await self._ask_to_cancel()
                with suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await wake.wait()

    async def _ask_to_cancel(self) -> None:
        try:
            request = inference_pb2.CancelAttemptRequest(attempt=self._attempt)
            await self._stub.CancelAttempt(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            log.info("%s did not take the cancel yet: %s", self._claim.worker, from_rpc_error(error).message)

    async def _take_back(self) -> None:
        """Has the worker forget what another one, or nobody, is to do now."""
        if await self._database.read(claims.is_stale, self._claim):
            await self._ask_to_cancel()

    async def _follow(self, row: GenerationRow) -> None:
        while await self._stream(row) is _Next.RETRY:
            pass

    async def _stream(self, row: GenerationRow) -> _Next:
        self._start = start = await self._where_to_start()
        self._unsent = None
        call = self._stub.Generate(self._requests(row, start))
        try:
            async for event in call:
                if await self._take(event, row):
                    return _Next.DONE
        except grpc.aio.AioRpcError as error:
            return await self._broken(from_rpc_error(error))
        except asyncio.CancelledError:  # what grpc.aio makes of an error in the requests, too
            if self._unsent is None:
                raise
            return await self._broken(self._unsent)
        except (OSError, ResourceExhausted, Unavailable) as error:  # a full disk, a damaged chunk: the worker keeps it
            log.warning("generations/%s: its video cannot be stored yet: %s", self._fence.generation, error)
        finally:
            call.cancel()
        await asyncio.sleep(RETRY_SECONDS)
        return _Next.RETRY

    async def _where_to_start(self) -> Start:
        row = await self._database.read(outcome.row_of, self._fence)
        if row is None or row.state == State.RUNNING:  # the worker has it
            return await self._resumption.known()
        worker = await self._database.read(outcome.worker_of, self._claim)
        return await self._resumption.find(worker.numerics_digest)

    async def _requests(self, row: GenerationRow, start: Start) -> AsyncIterator[inference_pb2.GenerateRequest]:
        parameters = generation_pb2.Parameters.FromString(row.parameters)
        first = inference_pb2.GenerateRequest.Start(
            attempt=self._attempt,
            parameters=parameters,
            model_version=row.model_version,
            video_offset=self._spool.size,
            resume=start.message,
            checkpoint_step=start.newest_step,
            may_prepare=await self._database.read(claims.is_prepared, self._claim),
            economy=None if row.economy is None else generation_pb2.Economy.FromString(row.economy),
            preview_interval=row.preview_interval,
        )
        yield inference_pb2.GenerateRequest(start=first)
        try:
            async for request in self._inputs(row.tenant, parameters, start):
                yield request
        except Wan22Error as error:
            self._unsent = error
            raise

    async def _inputs(
        self, tenant: str, parameters: generation_pb2.Parameters, start: Start
    ) -> AsyncIterator[inference_pb2.GenerateRequest]:
        for media in {parameters.image, parameters.last_image} - {""}:
            async for data in self._media.read(tenant, media.removeprefix("media/")):
                chunk = inference_pb2.GenerateRequest.InputChunk(media=media, data=data)
                yield inference_pb2.GenerateRequest(input_chunk=chunk)
        if start.checkpoint is not None:
            async for piece in self._resumption.read(start.checkpoint):
                yield inference_pb2.GenerateRequest(checkpoint_chunk=piece)

    async def _take(self, event: inference_pb2.GenerateEvent, row: GenerationRow) -> bool:
        """Acts on one event; True when there is nothing more to do."""
        kind = event.WhichOneof("event")
        if kind in {"accepted", "prepared"}:
            held = self._accepted if kind == "accepted" else self._is_prepared
            return not await held(getattr(event, kind), row)
        if kind in {"progress", "preview"}:
            told = self._progressed(event.progress) if kind == "progress" else self._show(event.preview, row)
            return not await told
        if kind == "video_chunk":
            await self._spool.write(event.video_chunk)
            return False
        if kind == "checkpoint":
            self._resumption.announce(event.checkpoint)
            return False
        if kind == "checkpoint_chunk":
            await self._resumption.take(event.checkpoint_chunk)
            return False
        if kind == "finished":
            await self._finished(event.finished)
        elif kind == "failed":
            await self._database.write(outcome.failed, self._claim, event.failed.error)
        elif kind == "cancelled":
            await self._database.write(outcome.stopped, self._claim)
        else:
            raise InternalError(f"{self._claim.worker} sent an event that this version does not know.")
        if self._started:  # else it was prepared, withdrawn, and may come again under its number
            await self._release()
        return True

    async def _accepted(self, accepted: inference_pb2.GenerateEvent.Accepted, row: GenerationRow) -> bool:
        """Records the start; False when the attempt must not go on."""
        if not await self._understood(accepted, row):
            return False
        self._started = True
        worker = await self._database.read(outcome.worker_of, self._claim)
        started = await self._database.write(
            lifecycle.start,
            self._fence,
            worker.name,
            worker.uid,
            resumed_step=0 if self._start.checkpoint is None else self._start.checkpoint.step,
            restart_reason=self._start.restart_reason,
        )
        if not started:
            await self._take_back()
        return started

    async def _is_prepared(self, prepared: inference_pb2.GenerateEvent.Accepted, row: GenerationRow) -> bool:
        """Takes note that the worker has it beside a running one; False when the attempt must not go on."""
        if not await self._understood(prepared, row):
            return False
        current = await self._database.read(outcome.row_of, self._fence)
        if current is None or current.state == State.RUNNING:  # the worker has let go of what it had started
            await self._ask_to_cancel()
            await self._database.write(outcome.not_begun, self._claim)
            return False
        self._prepared = True
        return True

    async def _understood(self, accepted: inference_pb2.GenerateEvent.Accepted, row: GenerationRow) -> bool:
        """Whether the process that was claimed, or one as good, means the same parameters."""
        if accepted.incarnation != self._claim.incarnation:  # a process that knows nothing of the attempt's past
            renewed = await self._database.write(outcome.restarted, self._claim, accepted.incarnation)
            if renewed is None:
                await self._ask_to_cancel()
                return False
            self._claim = renewed
        expected = complete_from_message(generation_pb2.Parameters.FromString(row.parameters)).digest
        if accepted.parameters_digest != expected:
            log.error("%s understood other parameters than these: not used for them.", self._claim.worker)
            await self._ask_to_cancel()
            await self._database.write(outcome.refused, self._claim, "BROKEN")
            return False
        return True

    async def _progressed(self, progress: generation_pb2.Progress) -> bool:
        denoising = progress.stage == generation_pb2.Progress.DENOISING
        is_step = denoising and 0 < progress.step < progress.num_steps and not progress.HasField("economy")
        if is_step and time.monotonic() - self._last_step_event < STEP_EVENT_SECONDS:
            return True
        if is_step:
            self._last_step_event = time.monotonic()
        return await self._database.write_own(lifecycle.progress, self._fence, progress)

    async def _show(self, preview: generation_pb2.Preview, row: GenerationRow) -> bool:
        """Passes a preview on to watchers; False when the attempt must not go on."""
        flaw = previews.flaw(preview, row.preview_interval)
        if flaw and not self._refused_preview:
            self._refused_preview = True
            log.warning("generations/%s: %s's preview is refused: %s.", row.id, self._claim.worker, flaw)
        if flaw or time.monotonic() - self._last_preview < STEP_EVENT_SECONDS:
            return True
        self._last_preview = time.monotonic()
        try:
            return await self._database.write_own(lifecycle.preview, self._fence, previews.known(preview))
        except ResourceExhausted as error:  # a full disk: what must be written there will say so
            log.info("generations/%s: a preview is not shown: %s", row.id, error.message)
            return True

    async def _finished(self, finished: inference_pb2.GenerateEvent.Finished) -> None:
        storing = generation_pb2.Progress(stage=generation_pb2.Progress.STORING)
        await self._progressed(storing)
        await self._spool.check(finished.video)
        await outcome.store(self._database, self._results, self._fence, self._spool.path, finished)

    async def _release(self) -> None:
        request = inference_pb2.ReleaseAttemptRequest(attempt=self._attempt)
        try:
            await self._stub.ReleaseAttempt(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:  # discovery finds the attempt stale and releases it then
            log.info("%s did not take the release: %s", self._claim.worker, from_rpc_error(error).message)

    async def _broken(self, error: Wan22Error) -> _Next:
        """Decides what a broken stream means, or one that could not be sent."""
        if isinstance(error, Aborted) and error.reason is Reason.STALE_OWNER:
            await self._outrun(error)
            return _Next.DONE
        if error.reason is Reason.ATTEMPT_RELEASED:
            await self._database.write(outcome.spent, self._claim)
            return _Next.DONE
        if error.reason is Reason.DAMAGED_CHECKPOINT and self._start.checkpoint is not None:
            await self._resumption.give_up(self._start.checkpoint.key, error.message.rstrip("."))
            await self._database.write(outcome.not_begun, self._claim)  # again, with the one before or without
            return _Next.DONE
        if error.reason in REFUSALS:
            await self._refused(REFUSALS[error.reason])
            return _Next.DONE
        if isinstance(error, TRANSPORT):
            log.info("The stream of generations/%s broke: %s", self._fence.generation, error.message)
            await asyncio.sleep(RETRY_SECONDS)
            return _Next.RETRY
        await self._database.write(lifecycle.fail, self._fence, error)
        return _Next.DONE

    async def _refused(self, state: str) -> None:
        """Takes a refusal. What refuses an attempt that is RUNNING may be another process: then the one before died."""
        row = await self._database.read(outcome.row_of, self._fence)
        if row is not None and row.state == State.RUNNING:
            with suppress(grpc.aio.AioRpcError):
                worker = await self._stub.GetWorker(inference_pb2.GetWorkerRequest(), timeout=CALL_SECONDS)
                if worker.incarnation != self._claim.incarnation:
                    await self._database.write(outcome.restarted, self._claim, worker.incarnation)
                    return
        await self._database.write(outcome.refused, self._claim, state)

    async def _outrun(self, error: Aborted) -> None:
        seen = older_store.newest_seen(error, self._fence)
        if not await self._database.write(older_store.go_beyond, self._claim, seen):
            log.info("generations/%s has a newer owner.", self._fence.generation)
            return
        text = "generations/%s: %s has seen attempt %d, owner epoch %d: the store is older than its workers."
        log.warning(text, self._fence.generation, self._claim.worker, seen.attempt, seen.owner_epoch)
