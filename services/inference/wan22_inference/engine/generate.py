"""One generation from parameters to an MP4 on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from wan22.economy import EMPTY, Economy
from wan22.errors import DataLoss, Reason, ResourceExhausted
from wan22.memory_model import Prediction, economise, predict, what_fits
from wan22.parameters import Parameters
from wan22.profiles import TURBO_HIGH_STEPS, Profile
from wan22.recipe import Recipe
from wan22_inference.engine import condition as conditions
from wan22_inference.engine.checkpoint import Checkpoint
from wan22_inference.engine.checkpoint_writer import CheckpointWriter
from wan22_inference.engine.condition import Condition
from wan22_inference.engine.frame import Frame
from wan22_inference.engine.ladder import Ladder, OutOfSteps
from wan22_inference.engine.lora.adaptation import Adaptation
from wan22_inference.engine.lora.adapter import LoraAdapter
from wan22_inference.engine.model import TRANSFORMERS, VAE, Model
from wan22_inference.engine.mp4 import Mp4Writer
from wan22_inference.engine.mp4_thread import Mp4Thread
from wan22_inference.engine.options import Shortcuts
from wan22_inference.engine.pace import Pace
from wan22_inference.engine.preparation import Preparation
from wan22_inference.engine.preview_writer import PreviewWriter
from wan22_inference.engine.progress import Progress, Report, ShouldStop, Stage, check_stop
from wan22_inference.engine.sampling import Expert, Text, denoise
from wan22_inference.engine.schedule import Schedule, make_schedule
from wan22_inference.engine.shortcuts import ForwardPlan, published_curve
from wan22_inference.engine.shortcuts import plan as make_plan

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What surrounds one generation: who hears of it, who may stop it, and where it starts."""

    report: Report
    should_stop: ShouldStop
    checkpoints: CheckpointWriter | None = None
    previews: PreviewWriter | None = None
    resume: Checkpoint | None = None
    """A checkpoint of the same recipe, from which denoising goes on."""
    economy: Economy = EMPTY
    """What an earlier attempt had to do to need less memory: done from the start."""
    between_steps: Callable[[], None] = lambda: None
    """Called between steps: short work for another generation, of no effect on this one."""
    adapters: Mapping[str, LoraAdapter] = field(default_factory=dict)
    """Each of the parameters' loras, by its name."""


@dataclass(frozen=True)
class Rendered:
    """A video that is computed, and being written."""

    economy: Economy
    """What took effect."""
    written: Future[None]

    def wait(self) -> None:
        """Returns when the file is whole. Raises what the encoder or the disk raised."""
        self.written.result()


def generate(
    model: Model,
    parameters: Parameters,
    images: Mapping[str, bytes],
    path: Path,
    run: Run,
    recipe: Recipe | None = None,
) -> Economy:
    """Makes the video and writes it to `path`; model, parameters and recipe alone shape its bytes.

    The recipe goes into the file, with the economy that took effect, which is returned. Where memory does not suffice,
    the phase that lacks it is tried again with more economy.

    Raises what make_frames raises; then the file is not to be used.
    """
    rendered = render(model, Preparation(model, parameters, images), path, run, recipe)
    rendered.wait()
    return rendered.economy


def render(model: Model, preparation: Preparation, path: Path, run: Run, recipe: Recipe | None = None) -> Rendered:
    """As `generate`, but returns when the device is free, while frames are still being encoded and written."""
    parameters = preparation.parameters
    generation = _Generation(model, preparation, run)
    latents = generation.latents()

    def write() -> Future[None]:
        told = None if recipe is None else recipe.with_economy(generation.economy.entries())
        size = {"width": parameters.width, "height": parameters.height}
        with Mp4Thread(lambda: Mp4Writer(path, **size, fps=parameters.fps, recipe=told)) as video:
            for frame in generation.frames(latents):
                video.write(frame)
        return video.written

    return Rendered(written=generation.frugally("decode", write), economy=generation.economy)


def make_frames(model: Model, parameters: Parameters, images: Mapping[str, bytes], run: Run) -> Iterator[Frame]:
    """Yields the video's frames as they are decoded.

    `images` has the PNG of each media name in the parameters. Raises Cancelled soon after `should_stop`, InvalidRequest
    for a text that is too long or an image that is none, InternalError when numbers are not finite, ResourceExhausted
    (OUT_OF_MEMORY) when the device's memory does not suffice, with what would fit, DataLoss for a checkpoint that is
    none of this generation, FailedPrecondition (ADAPTER_MISFIT) for an adapter without anything for its expert.
    """
    generation = _Generation(model, Preparation(model, parameters, images), run)
    yield from generation.frames(generation.latents())


@dataclass(frozen=True)
class Prepared:
    """What denoising needs beside the model: the texts and images, encoded."""

    text: Text
    condition: Condition


class _Generation:
    """One generation under way, and the economy that it has come to."""

    def __init__(self, model: Model, preparation: Preparation, run: Run) -> None:
        self._model = model
        self._preparation = preparation
        self._parameters = parameters = preparation.parameters
        self._run = run
        self._stage = Stage.ENCODING_TEXT
        self._adaptation = Adaptation(model.transformers, parameters.loras, run.adapters, model.device)
        self._holdings = model.placement.holdings()
        self._resident = model.variant.num_layers
        self._fits_beside_loading = True
        economy, prediction = run.economy, None
        if self._holdings is not None:
            overhead = self._holdings.overhead + self._adaptation.device_bytes + self._kept_bytes()
            self._holdings = replace(self._holdings, overhead=overhead)
            economy, prediction = economise(model.variant, parameters, self._holdings, economy)
            self._resident = prediction.resident_blocks
            loading = replace(self._holdings, overhead=overhead + model.arrivals.scratch_bytes)
            self._fits_beside_loading = predict(model.variant, parameters, loading, economy).fits
        shares_start = self._shares_start(prediction)
        self._ladder = Ladder(economy, model.placement, model.device, self._tell_economy, shares_start)
        if economy != run.economy:
            self._tell_economy(economy)

    @property
    def economy(self) -> Economy:
        """What takes effect."""
        return self._ladder.economy

    def frugally(self, phase: str, work: Callable[[], T]) -> T:
        """The result of work of a phase, done with more economy until it fits."""

        def work_or_wait() -> T:
            try:
                return work()
            except torch.OutOfMemoryError:
                if not self._model.arrivals.wait_for_all(self._run.should_stop):
                    raise
            return work()  # loading takes memory too, and has ended now

        try:
            return self._ladder.run(phase, work_or_wait)
        except OutOfSteps as error:
            raise self._out_of_memory(str(error)) from error

    def latents(self) -> Tensor:
        """What the video is decoded from."""
        self._report(Progress(Stage.ENCODING_TEXT))
        if not self._fits_beside_loading:  # no more economy instead, which would be of other bits than later
            self._model.arrivals.wait_for_all(self._run.should_stop)
        prepared = self.frugally("encode", self._prepare)
        latents = self.frugally("denoise", lambda: self._denoise(prepared))
        self._model.placement.clear()
        self._model.arrivals.wait_for_all(self._run.should_stop)
        self._report(Progress(Stage.DECODING))
        return latents

    def frames(self, latents: Tensor) -> Iterator[Frame]:
        """The frames of the latents, as they are decoded."""
        check = Pace(self._model.device, self._run.should_stop).check
        return self._model.vae.decode(latents, check, side=self.economy.decode_tile)

    @torch.inference_mode()
    def _prepare(self) -> Prepared:
        text = self._preparation.text()
        check_stop(self._run.should_stop)
        return Prepared(text, self._encode_images())

    def _encode_images(self) -> Condition:
        parameters, model = self._parameters, self._model
        fitted = {field: image.to(model.device) for field, image in self._preparation.images().items()}
        if fitted:
            self._report(Progress(Stage.ENCODING_IMAGE))
            model.arrivals.wait(VAE, self._run.should_stop)
        check = Pace(model.device, self._run.should_stop).check
        encode = partial(model.vae.encode, check=check, side=self.economy.encode_tile)
        if model.variant.image == "required":
            return conditions.image_channels(encode, fitted["image"], fitted.get("last_image"), parameters.num_frames)
        if model.variant.image == "optional":
            return conditions.first_frame(encode, fitted.get("image"))
        return conditions.TextOnly()

    @torch.inference_mode()
    def _denoise(self, prepared: Prepared) -> Tensor:
        model, parameters, run = self._model, self._parameters, self._run
        noise, generator = self._preparation.noise()
        latents = noise.to(model.device)
        schedule = make_schedule(
            parameters.solver,
            parameters.num_inference_steps,
            parameters.flow_shift,
            parameters.boundary,
            model.device,
            generator,
            high_steps=TURBO_HIGH_STEPS if parameters.profile is Profile.TURBO else None,
        )
        plan = self._plan(schedule)
        chunk = self.economy.feed_forward_chunk
        resume = run.resume if chunk == run.economy.feed_forward_chunk else None  # else it is of other bits
        if resume is not None:
            schedule.restore(resume.step, resume.solver)
            latents = _check_shape(resume.latents, latents).to(model.device)
            if plan is not None and not plan.starts_anew(resume.step):
                text = f"The checkpoint is of step {resume.step}, where what an earlier step computed is to be reused."
                raise DataLoss(text, reason=Reason.DAMAGED_CHECKPOINT)
        for transformer in model.transformers:
            transformer.set_feed_forward_chunk(chunk)

        def after_step(step: int, latents: Tensor, clean: Callable[[], Tensor]) -> None:
            if run.checkpoints is not None and (plan is None or plan.starts_anew(step)):
                run.checkpoints.offer(lambda: Checkpoint(step, latents, schedule.history()))
            if run.previews is not None and model.arrivals.has(VAE):
                run.previews.offer(step, parameters.num_inference_steps, lambda: model.as_pictures(clean()))
            run.between_steps()

        try:
            return denoise(
                latents,
                schedule,
                self._experts(),
                prepared.condition,
                prepared.text,
                report=self._report,
                should_stop=run.should_stop,
                first_step=0 if resume is None else resume.step,
                plan=plan,
                share_start=self._ladder.shares_start,
                after_step=after_step,
            )
        finally:
            self._adaptation.clear()

    def _plan(self, schedule: Schedule) -> ForwardPlan | None:
        """What is left out; nothing of the four steps of the turbo profile, each of which counts."""
        shortcuts, parameters, variant = self._model.shortcuts, self._parameters, self._model.variant
        if shortcuts == Shortcuts() or parameters.profile is Profile.TURBO:
            return None
        count = parameters.num_inference_steps
        steps = (schedule.high_steps, count - schedule.high_steps)[: variant.experts]
        return make_plan(shortcuts, published_curve(variant.name, image=parameters.image is not None), steps)

    def _kept_bytes(self) -> int:
        """Of the device, for what steps leave to others: a residual of each text, and the stream it is taken from."""
        return 0 if self._model.shortcuts.mag_cache is None else 3 * self._stream_bytes()

    def _shares_start(self, prediction: Prediction | None) -> bool:
        """Whether there is room to spare for what one forward of a step leaves to the other, and there is another."""
        if not any(scale > 1.0 for scale in self._scales()):
            return False
        if self._holdings is None or prediction is None:
            return True
        wanted = prediction.phases["denoise"] + 2 * self._stream_bytes()  # twice: it gains little, a retry costs much
        return not self._holdings.streamed and wanted <= self._holdings.limit

    def _stream_bytes(self) -> int:
        """Of a tensor like the DiT's residual stream."""
        parameters, variant = self._parameters, self._model.variant
        tokens = variant.tokens(parameters.width, parameters.height, parameters.num_frames)
        return tokens * variant.dim * self._model.transformers[0].dtype.itemsize

    def _scales(self) -> list[float]:
        scales = (self._parameters.guidance_scale_high, self._parameters.guidance_scale_low)
        return [scale for scale in scales if scale is not None]

    def _experts(self) -> list[Expert]:
        return [
            Expert(transformer, scale, partial(self._give_turn, index))
            for index, (transformer, scale) in enumerate(zip(self._model.transformers, self._scales(), strict=False))
        ]

    def _give_turn(self, index: int) -> None:
        self._model.arrivals.wait(TRANSFORMERS[index], self._run.should_stop)
        self._adaptation.clear()
        self._model.placement.give_turn(index, self._resident)
        self._adaptation.give_turn(index)

    def _report(self, progress: Progress) -> None:
        self._stage = progress.stage
        self._run.report(progress)

    def _tell_economy(self, economy: Economy) -> None:
        self._run.report(Progress(self._stage, economy=economy))

    def _out_of_memory(self, what: str) -> ResourceExhausted:
        parameters = self._parameters
        size = f"{parameters.width} x {parameters.height} x {parameters.num_frames} frames"
        text = f"The device's memory does not suffice for {size}, whatever is done to need less"
        if self._holdings is not None:
            needed = economise(self._model.variant, parameters, self._holdings, self.economy)[1].peak
            fits = what_fits(self._model.variant, parameters, self._holdings)
            text += f": about {needed >> 20} MiB of {self._holdings.limit >> 20} MiB; {fits}"
        return ResourceExhausted(f"{text}. ({what})", reason=Reason.OUT_OF_MEMORY)


def _check_shape(stored: Tensor, wanted: Tensor) -> Tensor:
    if (stored.shape, stored.dtype) != (wanted.shape, wanted.dtype):
        text = f"The checkpoint's latents are {stored.dtype} {list(stored.shape)}, not float32 {list(wanted.shape)}."
        raise DataLoss(text, reason=Reason.DAMAGED_CHECKPOINT)
    return stored
