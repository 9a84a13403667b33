"""One generation from parameters to an MP4 on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wan22.errors import DataLoss, Reason, ResourceExhausted
from wan22.parameters import Parameters
from wan22.profiles import TURBO_HIGH_STEPS, Profile
from wan22.recipe import Recipe
from wan22_inference.engine import condition as conditions
from wan22_inference.engine.checkpoint import Checkpoint
from wan22_inference.engine.checkpoint_writer import CheckpointWriter
from wan22_inference.engine.condition import Condition
from wan22_inference.engine.images import read_image
from wan22_inference.engine.model import Model
from wan22_inference.engine.mp4 import Mp4Writer
from wan22_inference.engine.noise import draw_noise, latent_shape, make_generator
from wan22_inference.engine.pace import Pace
from wan22_inference.engine.progress import Progress, Report, ShouldStop, Stage, check_stop
from wan22_inference.engine.sampling import Expert, Text, denoise
from wan22_inference.engine.schedule import make_schedule
from wan22_inference.engine.vae.frames import Frame


def generate(
    model: Model,
    parameters: Parameters,
    images: Mapping[str, bytes],
    path: Path,
    *,
    report: Report,
    should_stop: ShouldStop,
    recipe: Recipe | None = None,
    checkpoints: CheckpointWriter | None = None,
    resume: Checkpoint | None = None,
) -> None:
    """Makes the video and writes it to `path`; model, parameters and recipe alone shape its bytes.

    The recipe goes into the file. With `resume`, a checkpoint of the same recipe, denoising goes on where it stopped.

    Raises what make_frames raises; then the file is not to be used.
    """
    frames = make_frames(
        model, parameters, images, report=report, should_stop=should_stop, checkpoints=checkpoints, resume=resume
    )
    with Mp4Writer(path, width=parameters.width, height=parameters.height, fps=parameters.fps, recipe=recipe) as video:
        for frame in frames:
            video.write(frame)


def make_frames(
    model: Model,
    parameters: Parameters,
    images: Mapping[str, bytes],
    *,
    report: Report,
    should_stop: ShouldStop,
    checkpoints: CheckpointWriter | None = None,
    resume: Checkpoint | None = None,
) -> Iterator[Frame]:
    """Yields the video's frames as they are decoded.

    `images` has the PNG of each media name in the parameters. Raises Cancelled soon after `should_stop`, InvalidRequest
    for a text that is too long or an image that is none, InternalError when numbers are not finite, ResourceExhausted
    when the device's memory does not suffice, DataLoss for a checkpoint that is none of this generation.
    """
    try:
        report(Progress(Stage.ENCODING_TEXT))
        prepared = _prepare(model, parameters, images, report=report, should_stop=should_stop)
        latents = _denoise(
            model,
            parameters,
            prepared,
            report=report,
            should_stop=should_stop,
            checkpoints=checkpoints,
            resume=resume,
        )
        del prepared
        report(Progress(Stage.DECODING))
        yield from model.vae.decode(latents, Pace(model.device, should_stop).check)
    except torch.OutOfMemoryError as error:
        size = f"{parameters.width} x {parameters.height} x {parameters.num_frames} frames"
        raise ResourceExhausted(
            f"The device's memory does not suffice for {size}: ask for less. ({error})", reason=Reason.OUT_OF_MEMORY
        ) from error


@dataclass(frozen=True)
class Prepared:
    """What denoising needs beside the model: the texts and images, encoded."""

    text: Text
    condition: Condition


@torch.inference_mode()
def _prepare(
    model: Model, parameters: Parameters, images: Mapping[str, bytes], *, report: Report, should_stop: ShouldStop
) -> Prepared:
    guided = any(expert.guidance_scale > 1.0 for expert in _experts(model, parameters))
    text = _encode_text(model, parameters, guided=guided)
    check_stop(should_stop)
    return Prepared(text, _encode_images(model, parameters, images, report=report, should_stop=should_stop))


@torch.inference_mode()
def _denoise(
    model: Model,
    parameters: Parameters,
    prepared: Prepared,
    *,
    report: Report,
    should_stop: ShouldStop,
    checkpoints: CheckpointWriter | None,
    resume: Checkpoint | None,
) -> Tensor:
    shape = latent_shape(model.variant, parameters.width, parameters.height, parameters.num_frames)
    generator = make_generator(parameters.seed)
    latents = draw_noise(shape, generator).to(model.device)
    schedule = make_schedule(
        parameters.solver,
        parameters.num_inference_steps,
        parameters.flow_shift,
        parameters.boundary,
        model.device,
        generator,
        high_steps=TURBO_HIGH_STEPS if parameters.profile is Profile.TURBO else None,
    )
    if resume is not None:
        schedule.restore(resume.step, resume.solver)
        latents = _check_shape(resume.latents, latents).to(model.device)

    def after_step(step: int, latents: Tensor) -> None:
        if checkpoints is not None:
            checkpoints.offer(lambda: Checkpoint(step, latents, schedule.history()))

    return denoise(
        latents,
        schedule,
        _experts(model, parameters),
        prepared.condition,
        prepared.text,
        report=report,
        should_stop=should_stop,
        first_step=0 if resume is None else resume.step,
        after_step=after_step,
    )


def _check_shape(stored: Tensor, wanted: Tensor) -> Tensor:
    if (stored.shape, stored.dtype) != (wanted.shape, wanted.dtype):
        text = f"The checkpoint's latents are {stored.dtype} {list(stored.shape)}, not float32 {list(wanted.shape)}."
        raise DataLoss(text, reason=Reason.DAMAGED_CHECKPOINT)
    return stored


def _experts(model: Model, parameters: Parameters) -> list[Expert]:
    scales = (parameters.guidance_scale_high, parameters.guidance_scale_low)
    return [
        Expert(transformer, scale)
        for transformer, scale in zip(model.transformers, scales, strict=False)
        if scale is not None
    ]


def _encode_text(model: Model, parameters: Parameters, *, guided: bool) -> Text:
    texts = {"prompt": parameters.prompt}
    if guided:
        texts["negative_prompt"] = parameters.negative_prompt
    encoded = model.text_encoder.encode(texts, may_cut=parameters.cut_prompt)
    return Text(encoded["prompt"], encoded.get("negative_prompt"))


def _encode_images(
    model: Model, parameters: Parameters, images: Mapping[str, bytes], *, report: Report, should_stop: ShouldStop
) -> Condition:
    fitted = {
        field: read_image(images[media], field, parameters.width, parameters.height).to(model.device)
        for field, media in (("image", parameters.image), ("last_image", parameters.last_image))
        if media is not None
    }
    if fitted:
        report(Progress(Stage.ENCODING_IMAGE))
    check = Pace(model.device, should_stop).check
    if model.variant.image == "required":
        first, last = fitted["image"], fitted.get("last_image")
        return conditions.image_channels(model.vae, first, last, parameters.num_frames, check)
    if model.variant.image == "optional":
        return conditions.first_frame(model.vae, fitted.get("image"), check)
    return conditions.TextOnly()
