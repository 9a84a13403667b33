"""One simulated rendering: stages, steps and checkpoints at their times, and a video that depends on its recipe alone.

Each step hashes what the one before left, as a denoise loop would go on from its latents: a rendering that is resumed
from another generation's checkpoint, or from the wrong step, gives another video.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path

from wan22.economy import Economy
from wan22.errors import DataLoss, InvalidRequest, Reason
from wan22.parameters import Parameters
from wan22.recipe import Recipe
from wan22.variants import MAX_PROMPT_TOKENS, Variant
from wan22_gateway.cost import work
from wan22_inference.engine.preview import Preview, make_preview
from wan22_inference.engine.progress import Progress, Stage, check_stop
from wan22_inference.inputs import SentCheckpoint
from wan22_inference.renderer import Hooks
from wan22_testing.simulated_worker.video import pictures, write_video

log = logging.getLogger(__name__)

STOP_LOOK_SECONDS = 0.2
"""How often a stop is looked for within a long step."""
TEXT_SHARE = 0.5
"""Of the fixed seconds, the part for texts; the rest is the MP4's end."""
_FORMAT = "wan22-simulated-checkpoint-1"


@dataclass(frozen=True)
class SimulatedVideo:
    """A video that is computed, and is written by whoever waits for it."""

    path: Path
    final_state: bytes
    told: Recipe
    economy: Economy

    def wait(self) -> None:
        """Writes the file."""
        write_video(self.path, self.final_state, self.told)


class SimulatedRendering:
    """One attempt's work."""

    def __init__(
        self,
        variant: Variant,
        parameters: Parameters,
        recipe: Recipe,
        resume: SentCheckpoint | None,
        *,
        time_scale: float,
        step_seconds: float,
        checkpoint_seconds: float,
        economy: Economy,
        preview_interval: int,
    ) -> None:
        """Raises DataLoss (DAMAGED_CHECKPOINT) for a checkpoint that is none."""
        self.parameters = parameters
        self.recipe = recipe
        self.failure = None
        """It never fails by itself."""
        self._cost = work(variant, parameters)
        self._time_scale = time_scale
        self._step_seconds = step_seconds
        self._checkpoint_seconds = checkpoint_seconds
        self._economy = economy
        self._preview_interval = preview_interval
        self._step, self._state = (0, first_state(recipe)) if resume is None else _parse(resume)
        self._text_is_encoded = False

    def prepare_on_host(self) -> None:
        """Nothing is to be done ahead."""

    def prepare_on_device(self) -> None:
        """Encodes the texts. Raises InvalidRequest for a prompt that is too long."""
        self._check_prompt()
        self._text_is_encoded = True

    async def render(self, path: Path, hooks: Hooks) -> SimulatedVideo:
        """Takes its time. Raises Cancelled soon after `should_stop`, InvalidRequest for a prompt that is too long."""
        hooks.report(Progress(Stage.ENCODING_TEXT))
        self._check_prompt()
        if not self._text_is_encoded:
            await self._spend(TEXT_SHARE * self._cost.fixed, hooks)
        if self.parameters.image is not None or self.parameters.last_image is not None:
            hooks.report(Progress(Stage.ENCODING_IMAGE))
        await self._denoise(hooks)
        hooks.report(Progress(Stage.DECODING))
        await self._spend(self._cost.decode + (1 - TEXT_SHARE) * self._cost.fixed, hooks)
        return SimulatedVideo(
            path, self._state, _told(self.recipe.with_economy(self._economy.entries())), self._economy
        )

    async def _denoise(self, hooks: Hooks) -> None:
        num_steps = self.parameters.num_inference_steps
        seconds = max((self._cost.linear + self._cost.attention) / num_steps * self._time_scale, self._step_seconds)
        kept = time.monotonic()
        hooks.report(Progress(Stage.DENOISING, self._step, num_steps))
        while self._step < num_steps:
            await self._wait(seconds, hooks)
            self._step, self._state = self._step + 1, next_state(self._state)
            hooks.report(Progress(Stage.DENOISING, self._step, num_steps))
            if self._preview_interval and self._step % self._preview_interval == 0 and self._step < num_steps:
                hooks.show(await asyncio.to_thread(self._preview))
            hooks.between_steps()
            if self._step < num_steps and time.monotonic() - kept >= self._checkpoint_seconds:
                kept = time.monotonic()
                await asyncio.to_thread(self._keep, hooks)

    def _preview(self) -> Preview:
        """Of the squares that the video would have, if this step were the last."""
        parameters = self.parameters
        seconds = parameters.num_frames / parameters.fps
        return make_preview(self._step, parameters.num_inference_steps, pictures(self._state), seconds)

    def _keep(self, hooks: Hooks) -> None:
        content = {"format": _FORMAT, "step": self._step, "state": self._state.hex()}
        try:
            hooks.deliver(self._step, json.dumps(content).encode())
        except OSError as error:  # a full disk, say: the generation goes on, less safely
            log.warning("No checkpoint is kept of step %d: %s", self._step, error)

    async def _spend(self, seconds: float, hooks: Hooks) -> None:
        await self._wait(seconds * self._time_scale, hooks)

    async def _wait(self, seconds: float, hooks: Hooks) -> None:
        end = time.monotonic() + seconds
        check_stop(hooks.should_stop)
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(left, STOP_LOOK_SECONDS))
            check_stop(hooks.should_stop)
        await asyncio.sleep(0)

    def _check_prompt(self) -> None:
        """Without a tokenizer only this is sure: a word is a token or more."""
        words = len(self.parameters.prompt.split())
        if words > MAX_PROMPT_TOKENS and not self.parameters.cut_prompt:
            text = f"prompt has at least {words} tokens: use at most {MAX_PROMPT_TOKENS}, or set cut_prompt."
            raise InvalidRequest(text, field="parameters.prompt")


def write_undisturbed(recipe: Recipe, path: Path) -> None:
    """Writes the video that an attempt makes of the recipe when nothing happens to it."""
    state = first_state(recipe.with_economy({}))
    for _ in range(recipe.parameters["num_inference_steps"]):
        state = next_state(state)
    write_video(path, state, _told(recipe))


def _told(recipe: Recipe) -> Recipe:
    """What is written into the file."""
    return recipe.without_texts() if recipe.parameters["omit_prompt"] else recipe


def first_state(recipe: Recipe) -> bytes:
    """What stands for the latents before the first step."""
    return hashlib.sha256(recipe.to_json().encode()).digest()


def next_state(state: bytes) -> bytes:
    """What one step makes of it."""
    return hashlib.sha256(state).digest()


def _parse(sent: SentCheckpoint) -> tuple[int, bytes]:
    try:
        content = json.loads(sent.data)
        step, state = int(content["step"]), bytes.fromhex(content["state"])
        if (content["format"], step) != (_FORMAT, sent.step):
            raise ValueError(f"it is of format {content['format']!r} and step {step}")  # noqa: TRY301  # one text for all
    except (ValueError, KeyError, TypeError) as error:
        text = f"The checkpoint of step {sent.step} cannot be read ({error})."
        raise DataLoss(text, reason=Reason.DAMAGED_CHECKPOINT) from error
    return step, state
