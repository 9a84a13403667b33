"""One generation from parameters to an MP4 on disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from wan22.errors import Reason, ResourceExhausted
from wan22.parameters import Parameters
from wan22_inference.engine import condition as conditions
from wan22_inference.engine import vae
from wan22_inference.engine.condition import Condition
from wan22_inference.engine.images import read_image
from wan22_inference.engine.model import Model
from wan22_inference.engine.mp4 import Mp4Writer
from wan22_inference.engine.noise import draw_noise, latent_shape
from wan22_inference.engine.progress import Progress, Report, ShouldStop, Stage, check_stop
from wan22_inference.engine.sampling import Expert, Text, denoise
from wan22_inference.engine.schedule import make_schedule


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

    `images` has the PNG of each media name in the parameters. Raises Cancelled soon after `should_stop`, InvalidRequest
    for a text that is too long or an image that is none, InternalError when numbers are not finite, ResourceExhausted
    when the device's memory does not suffice.
    """
    try:
        with torch.inference_mode():
            _generate(model, parameters, images, path, report=report, should_stop=should_stop)
    except torch.OutOfMemoryError as error:
        size = f"{parameters.width} x {parameters.height} x {parameters.num_frames} frames"
        raise ResourceExhausted(
            f"The device's memory does not suffice for {size}: ask for less. ({error})", reason=Reason.OUT_OF_MEMORY
        ) from error


def _generate(
    model: Model,
    parameters: Parameters,
    images: Mapping[str, bytes],
    path: Path,
    *,
    report: Report,
    should_stop: ShouldStop,
) -> None:
    width, height, num_frames = parameters.width, parameters.height, parameters.num_frames
    experts = _experts(model, parameters)
    report(Progress(Stage.ENCODING_TEXT))
    text = _encode_text(model, parameters, guided=any(expert.guidance_scale > 1.0 for expert in experts))
    check_stop(should_stop)
    condition = _encode_images(model, parameters, images, report)
    noise = draw_noise(latent_shape(model.variant, width, height, num_frames), parameters.seed).to(model.device)
    schedule = make_schedule(parameters.num_inference_steps, parameters.flow_shift, parameters.boundary, model.device)
    latents = denoise(noise, schedule, experts, condition, text, report=report, should_stop=should_stop)
    report(Progress(Stage.DECODING))
    with Mp4Writer(path, width=width, height=height, fps=parameters.fps) as video:
        for frame in vae.decode(model.vae, latents):
            check_stop(should_stop)
            video.write(frame)


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


def _encode_images(model: Model, parameters: Parameters, images: Mapping[str, bytes], report: Report) -> Condition:
    fitted = {
        field: read_image(images[media], field, parameters.width, parameters.height).to(model.device)
        for field, media in (("image", parameters.image), ("last_image", parameters.last_image))
        if media is not None
    }
    if fitted:
        report(Progress(Stage.ENCODING_IMAGE))
    if model.variant.image == "required":
        return conditions.image_channels(model.vae, fitted["image"], fitted.get("last_image"), parameters.num_frames)
    if model.variant.image == "optional":
        return conditions.first_frame(model.vae, fitted.get("image"))
    return conditions.TextOnly()
