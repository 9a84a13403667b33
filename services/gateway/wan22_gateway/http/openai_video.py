"""A generation as OpenAI's video job (platform.openai.com/docs/api-reference/videos), and lengths in seconds."""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

from wan22.errors import Code, InvalidRequest
from wan22.status import from_status
from wan22.v1.generation_pb2 import Generation, Progress
from wan22.variants import TEMPORAL_STRIDE
from wan22_gateway.http.model import Model

STATUSES = {
    Generation.QUEUED: "queued",
    Generation.RUNNING: "in_progress",
    Generation.SUCCEEDED: "completed",
    Generation.FAILED: "failed",
    Generation.CANCELLED: "failed",
}
BEFORE_STEPS, BEHIND_STEPS = 2, 94
"""Per cent of the work that is done before the first denoising step, and behind the last one."""
STAGE_PROGRESS = {
    Progress.ENCODING_TEXT: 0,
    Progress.ENCODING_IMAGE: 1,
    Progress.DENOISING: BEFORE_STEPS,
    Progress.DECODING: BEHIND_STEPS,
    Progress.STORING: 99,
}


class VideoError(Model):
    """Why a job failed."""

    code: str
    message: str


class VideoJob(Model):
    """One generation."""

    id: str
    """Its UUID: it is generations/{id} elsewhere."""
    object: Literal["video"]
    model: str
    """The variant."""
    status: Literal["queued", "in_progress", "completed", "failed"]
    """A cancelled one is failed, with the code `cancelled`."""
    progress: int
    """Per cent; 100 when completed."""
    created_at: int
    """Seconds since 1970."""
    completed_at: int | None
    """When it ended, in any way."""
    expires_at: int | None
    """When its MP4 goes; null where it is kept."""
    prompt: str | None
    seconds: str
    """(frames - 1) / fps: from the first frame to the last one."""
    size: str
    """WIDTHxHEIGHT."""
    error: VideoError | None
    remixed_from_video_id: None
    """Nothing is remixed here."""


def video_job(generation: Generation) -> VideoJob:
    """A generation as a job."""
    parameters, video = generation.parameters, generation.video
    return VideoJob.model_validate(
        {
            "id": generation.name.removeprefix("generations/"),
            "object": "video",
            "model": generation.variant,
            "status": STATUSES[generation.state],
            "progress": _progress(generation),
            "created_at": generation.create_time.seconds,
            "completed_at": generation.end_time.seconds if generation.HasField("end_time") else None,
            "expires_at": video.expire_time.seconds if video.HasField("expire_time") else None,
            "prompt": parameters.prompt,
            "seconds": f"{(parameters.num_frames - 1) / parameters.fps:g}",
            "size": f"{parameters.width}x{parameters.height}",
            "error": _error(generation),
            "remixed_from_video_id": None,
        }
    )


def frames_of(seconds: str | float, fps: int) -> int:
    """The 4n + 1 frames that span a number of seconds exactly: the first is at 0, the last at the end.

    Raises InvalidRequest with the nearest lengths that are possible: multiples of 4 / fps seconds.
    """
    try:
        spans = Decimal(str(seconds)) * fps
    except ArithmeticError:  # it is no number, or has more digits than any
        spans = Decimal("NaN")
    if not spans.is_finite() or not 0 <= spans < 1_000_000:
        raise InvalidRequest(f"seconds is {str(seconds)[:40]!r}: use a number, such as '5'.", field="seconds")
    if spans % TEMPORAL_STRIDE:
        lower = int(spans // TEMPORAL_STRIDE) * TEMPORAL_STRIDE
        near = " or ".join(f"{frames / fps:.6g}" for frames in (lower, lower + TEMPORAL_STRIDE))
        text = f"seconds is {seconds}: at {fps} frames a second use a multiple of 4/{fps}, such as {near}."
        raise InvalidRequest(text, field="seconds")
    return int(spans) + 1


def size_of(size: str) -> tuple[int, int]:
    """Width and height. Raises InvalidRequest; the variant's own rules come later."""
    width, x, height = size.partition("x")
    if not (x and all(side.isascii() and side.isdigit() and len(side) < 7 for side in (width, height))):
        raise InvalidRequest(f"size is {size[:40]!r}: use WIDTHxHEIGHT, such as 1280x720.", field="size")
    return int(width), int(height)


def _progress(generation: Generation) -> int:
    if generation.state == Generation.SUCCEEDED:
        return 100
    progress = generation.progress
    done = STAGE_PROGRESS.get(progress.stage, 0)
    if progress.stage == Progress.DENOISING and progress.num_steps:
        done += (BEHIND_STEPS - BEFORE_STEPS) * progress.step // progress.num_steps
    return done


def _error(generation: Generation) -> dict[str, str] | None:
    if generation.state == Generation.CANCELLED:
        return {"code": "cancelled", "message": "It was cancelled."}
    if not generation.HasField("error"):
        return None
    error = from_status(generation.error)
    code = error.code.name if error.reason == "UNSPECIFIED" else error.reason.value
    return {"code": code.lower(), "message": error.message or Code(error.code).name}
