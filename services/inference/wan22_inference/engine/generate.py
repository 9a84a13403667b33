"""One generation from parameters to an MP4 on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from wan22.errors import Reason, ResourceExhausted
from wan22.parameters import Parameters
from wan22_inference.engine import condition as conditions
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
) -> None:
    """Makes the video and writes it to `path`; nothing but the model and the parameters shapes its bytes.

    Raises what make_frames raises; then the file is not to be used.
    """
    frames = make_frames(model, parameters, images, report=report, should_stop=should_stop)
    with Mp4Writer(path, width=parameters.width, height=parameters.height, fps=parameters.fps) as video:
        for frame in frames:
            video.write(frame)


def make_frames(
    model: Model, parameters: Parameters, images: Mapping[str, bytes], *, report: Report, should_stop: ShouldStop
) -> Iterator[Frame]:
    """Yields the video's frames as they are decoded.

    `images` has the PNG of each media name in the parameters. Raises Cancelled soon after `should_stop`, InvalidRequest
    for a text that is too long or an image that is none, InternalError when numbers are not finite, ResourceExhausted
    when the device's memory does not suffice.
    """
    try:
        latents = _make_latents(model, parameters, images, report=report, should_stop=should_stop)
        report(Progress(Stage.DECODING))
        yield from model.vae.decode(latents, Pace(model.device, should_stop).check)
    except torch.OutOfMemoryError as error:
        size = f"{parameters.width} x {parameters.height} x {parameters.num_frames} frames"
        raise ResourceExhausted(
            f"The device's memory does not suffice for {size}: ask for less. ({error})", reason=Reason.OUT_OF_MEMORY
        ) from error


@torch.inference_mode()
def _make_latents(
    model: Model, parameters: Parameters, images: Mapping[str, bytes], *, report: Report, should_stop: ShouldStop
) -> Tensor:
    experts = _experts(model, parameters)
    report(Progress(Stage.ENCODING_TEXT))
    text = _encode_text(model, parameters, guided=any(expert.guidance_scale > 1.0 for expert in experts))
    check_stop(should_stop)
    condition = _encode_images(model, parameters, images, report=report, should_stop=should_stop)
    shape = latent_shape(model.variant, parameters.width, parameters.height, parameters.num_frames)
    generator = make_generator(parameters.seed)
    noise = draw_noise(shape, generator).to(model.device)
    schedule = make_schedule(
        parameters.solver,
        parameters.num_inference_steps,
        parameters.flow_shift,
        parameters.boundary,
        model.device,
        generator,
    )
    return denoise(noise, schedule, experts, condition, text, report=report, should_stop=should_stop)


def _experts(model: Model, parameters: Parameters) -> list[Expert]:
    scales = (parameters.guidance_scale_high, parameters.guidance_scale_low)
    return [
        Expert(transformer, scale)
        for transformer, scale in zip(model.transformers, scales, strict=False)
        if scale is not None
    ]


def _encode_text(model: Model, parameters: Parameters, *, guided: bool) -> Text:
    prompt = model.text_encoder.encode(parameters.prompt, "prompt")
    negative = model.text_encoder.encode(parameters.negative_prompt, "negative_prompt") if guided else None
    return Text(prompt, negative)


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
