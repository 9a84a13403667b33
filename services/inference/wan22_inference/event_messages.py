"""What happens to an attempt, as messages."""

from __future__ import annotations

import zlib

from wan22.memory_messages import economy_message
from wan22.status import to_status
from wan22.v1 import generation_pb2, inference_pb2
from wan22_inference.engine.preview import Preview
from wan22_inference.engine.progress import Progress, Stage
from wan22_inference.jobs import Failed, Finished, StoredCheckpoint

GenerateEvent = inference_pb2.GenerateEvent

_STAGES = {
    Stage.ENCODING_TEXT: generation_pb2.Progress.ENCODING_TEXT,
    Stage.ENCODING_IMAGE: generation_pb2.Progress.ENCODING_IMAGE,
    Stage.DENOISING: generation_pb2.Progress.DENOISING,
    Stage.DECODING: generation_pb2.Progress.DECODING,
}


def accepted(parameters_digest: str, incarnation: str) -> inference_pb2.GenerateEvent:
    """The worker holds the attempt, and has started it."""
    return GenerateEvent(accepted=GenerateEvent.Accepted(parameters_digest=parameters_digest, incarnation=incarnation))


def prepared(parameters_digest: str, incarnation: str) -> inference_pb2.GenerateEvent:
    """The worker holds the attempt beside a running one."""
    return GenerateEvent(prepared=GenerateEvent.Accepted(parameters_digest=parameters_digest, incarnation=incarnation))


def progress(value: Progress) -> inference_pb2.GenerateEvent:
    """A stage or step."""
    message = generation_pb2.Progress(stage=_STAGES[value.stage], step=value.step, num_steps=value.num_steps)
    if value.economy is not None:
        message.economy.CopyFrom(economy_message(value.economy))
    return GenerateEvent(progress=message)


def preview(value: Preview) -> inference_pb2.GenerateEvent:
    """What the video is becoming."""
    return GenerateEvent(preview=generation_pb2.Preview(**vars(value)))


def video_chunk(offset: int, data: bytes) -> inference_pb2.GenerateEvent:
    """A piece of the MP4."""
    return GenerateEvent(video_chunk=generation_pb2.VideoChunk(offset=offset, data=data, crc32=zlib.crc32(data)))


def checkpoint(stored: StoredCheckpoint, numerics_digest: str) -> inference_pb2.GenerateEvent:
    """A checkpoint, whose chunks follow."""
    message = inference_pb2.Checkpoint(
        step=stored.step, size_bytes=stored.size_bytes, digest=stored.digest, numerics_digest=numerics_digest
    )
    return GenerateEvent(checkpoint=message)


def checkpoint_chunk(step: int, offset: int, data: bytes) -> inference_pb2.GenerateEvent:
    """A piece of it."""
    chunk = inference_pb2.CheckpointChunk(step=step, offset=offset, data=data, crc32=zlib.crc32(data))
    return GenerateEvent(checkpoint_chunk=chunk)


def finished(outcome: Finished) -> inference_pb2.GenerateEvent:
    """The end of a success."""
    video = generation_pb2.Video(size_bytes=outcome.size_bytes, digest=outcome.digest)
    recipe = outcome.recipe.to_json()
    return GenerateEvent(
        finished=GenerateEvent.Finished(video=video, compute_seconds=outcome.compute_seconds, recipe=recipe)
    )


def failed(outcome: Failed) -> inference_pb2.GenerateEvent:
    """The end of a failure."""
    return GenerateEvent(failed=GenerateEvent.Failed(error=to_status(outcome.error)))


def cancelled() -> inference_pb2.GenerateEvent:
    """The end after CancelAttempt."""
    return GenerateEvent(cancelled=GenerateEvent.Cancelled())
