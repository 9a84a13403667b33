"""The parameters of a generation: what a request may say, checked and completed by the variant's rules."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from wan22.adapter import LARGEST_STRENGTH
from wan22.errors import InvalidRequest, Violation
from wan22.loras import MAX_LORAS, Expert, Lora, RequestedLora
from wan22.names import VersionName, check_media
from wan22.profiles import TURBO_SOLVER, TURBO_STEPS, Profile, turbo_flow_shift
from wan22.solvers import Solver
from wan22.variants import MAX_AREA, MAX_SIDE, MIN_SIDE, NEGATIVE_PROMPT, TEMPORAL_STRIDE, Variant

T = TypeVar("T")

MAX_SEED = 2**63 - 1
MAX_TEXT_CHARACTERS = 10_000
"""Beyond this no prompt has 512 tokens or fewer; refused before it is tokenized."""

Size = tuple[int, int]
"""Width and height, pixels."""


@dataclass(frozen=True, kw_only=True)
class RequestedParameters:
    """What a request says; None is absent."""

    prompt: str
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    fps: int | None = None
    num_inference_steps: int | None = None
    guidance_scale_high: float | None = None
    guidance_scale_low: float | None = None
    flow_shift: float | None = None
    boundary: float | None = None
    seed: int | None = None
    image: str | None = None
    last_image: str | None = None
    solver: Solver | None = None
    profile: Profile | None = None
    loras: tuple[RequestedLora, ...] = ()
    cut_prompt: bool | None = None
    omit_prompt: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """What takes effect: complete, valid for its variant; None only where the variant has no such thing."""

    prompt: str
    negative_prompt: str
    width: int
    height: int
    num_frames: int
    fps: int
    num_inference_steps: int
    guidance_scale_high: float
    guidance_scale_low: float | None
    flow_shift: float
    boundary: float | None
    seed: int
    image: str | None
    last_image: str | None
    solver: Solver
    profile: Profile = Profile.QUALITY
    loras: tuple[Lora, ...] = ()
    cut_prompt: bool = False
    omit_prompt: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON form: what a worker echoes to show that it understood the same."""
        form = {**vars(self), "loras": [vars(lora) for lora in self.loras]}
        return "sha256:" + hashlib.sha256(_CANONICAL.encode(form).encode()).hexdigest()


_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def resolve(
    variant: Variant, requested: RequestedParameters, *, image_size: Size | None, draw_seed: Callable[[], int]
) -> Parameters:
    """Completes a request by the variant's defaults.

    `image_size` is the size of the first-frame image, when there is one. Raises InvalidRequest naming every field that
    is wrong, with the nearest valid values.
    """
    problems = _Problems()
    requested = _with_profile(problems, variant, requested)
    num_frames = _or(requested.num_frames, variant.num_frames)
    guidance_low = _or(requested.guidance_scale_low, variant.guidance_scale_low)
    turbo = requested.profile is Profile.TURBO
    boundary = None if turbo else _or(requested.boundary, variant.boundary)
    width, height = _size(variant, requested, image_size)
    parameters = Parameters(
        prompt=requested.prompt,
        negative_prompt=_or(requested.negative_prompt, NEGATIVE_PROMPT),
        width=width,
        height=height,
        num_frames=num_frames,
        fps=_or(requested.fps, variant.fps),
        num_inference_steps=_or(requested.num_inference_steps, variant.num_inference_steps),
        guidance_scale_high=float(_or(requested.guidance_scale_high, variant.guidance_scale_high)),
        guidance_scale_low=None if guidance_low is None else float(guidance_low),
        flow_shift=float(_or(requested.flow_shift, variant.flow_shift)),
        boundary=None if boundary is None else float(boundary),
        seed=draw_seed() if requested.seed is None else requested.seed,
        image=requested.image,
        last_image=requested.last_image,
        solver=_or(requested.solver, variant.solver),
        profile=_or(requested.profile, Profile.QUALITY),
        loras=tuple(lora.complete() for lora in requested.loras),
        cut_prompt=_or(requested.cut_prompt, False),
        omit_prompt=_or(requested.omit_prompt, False),
    )
    if not parameters.prompt.strip():
        problems.add("prompt", "is empty: say what to show")
    for field in ("prompt", "negative_prompt"):
        length = len(getattr(parameters, field))
        if length > MAX_TEXT_CHARACTERS:
            problems.add(field, f"has {length} characters: use at most 512 tokens (about 2,000 characters)")
    _check_size(problems, variant, parameters)
    _check_frames(problems, variant, num_frames)
    problems.check_range("fps", parameters.fps, 1, 60)
    problems.check_range("num_inference_steps", parameters.num_inference_steps, 1, 100)
    problems.check_range("guidance_scale_high", parameters.guidance_scale_high, 1.0, 20.0)
    problems.check_range("flow_shift", parameters.flow_shift, 0.5, 20.0)
    problems.check_range("seed", parameters.seed, 0, MAX_SEED)
    _check_experts(problems, variant, parameters)
    _check_images(problems, variant, parameters)
    _check_loras(problems, variant, parameters.loras)
    problems.raise_if_any()
    return parameters


def _with_profile(problems: _Problems, variant: Variant, requested: RequestedParameters) -> RequestedParameters:
    """The request with what its profile locks filled in; a locked parameter may be given with the locked value."""
    if requested.profile is not Profile.TURBO:
        return requested
    if variant.experts == 1:
        problems.add("profile", f"is TURBO: {variant.name} has no distilled weights; leave it out, or use QUALITY")
        return replace(requested, profile=None)
    locked = {
        "num_inference_steps": TURBO_STEPS,
        "guidance_scale_high": 1.0,
        "guidance_scale_low": 1.0,
        "flow_shift": turbo_flow_shift(last_image=requested.last_image is not None),
        "boundary": None,
        "solver": TURBO_SOLVER,
    }
    for field, value in locked.items():
        given = getattr(requested, field)
        if given is not None and given != value:
            of_profile = "is locked by its own rule" if value is None else f"is locked to {value}"
            problems.add(field, f"is {given}, but {of_profile} in profile TURBO: leave it out, or use QUALITY")
    return replace(requested, **locked)  # type: ignore[arg-type]  # each of its field's type


def _or(requested: T | None, default: T) -> T:
    return default if requested is None else requested


class _Problems:
    """Collects everything that is wrong with a request."""

    def __init__(self) -> None:
        self._found: list[Violation] = []

    def add(self, field: str, text: str) -> None:
        self._found.append(Violation(f"parameters.{field}", f"{field} {text}."))

    def check_range(self, field: str, value: float, low: float, high: float) -> None:
        if not low <= value <= high:  # NaN fails too
            nearest = (
                f"the nearest is {low if value < low else high}" if math.isfinite(value) else "it must be a number"
            )
            self.add(field, f"is {value}: use {low} to {high}; {nearest}")

    def raise_if_any(self) -> None:
        if self._found:
            raise InvalidRequest(" ".join(v.description for v in self._found), violations=self._found)


def _nearest(value: int, multiple: int, low: int, high: int) -> str:
    """The valid values around one, as text."""
    first, last = -(-low // multiple) * multiple, high // multiple * multiple
    below = min(max(value // multiple * multiple, first), last)
    above = min(max(below + multiple, first), last) if value > below else below
    return str(below) if below == above else f"{below} or {above}"


def _size(variant: Variant, requested: RequestedParameters, image_size: Size | None) -> Size:
    if requested.width is not None or requested.height is not None or image_size is None:
        return _or(requested.width, variant.width), _or(requested.height, variant.height)
    return size_for_image(variant, image_size, variant.width * variant.height)


def size_for_image(variant: Variant, image_size: Size, max_area: int) -> Size:
    """The output size for a first-frame image: its aspect within an area of pixels.

    i2v (wan/image2video.py): latent height floor(sqrt(area * h / w) / 8 / 2) * 2, times 8; width likewise. ti2v
    (best_output_size of wan/utils/utils.py): of the two sizes that round one side down to its multiple, the one whose
    aspect is closer to the image's.
    """
    width, height = image_size
    aspect = width / height
    multiple = variant.size_multiple
    if variant.experts == 2:
        tall = math.floor(math.sqrt(max_area / aspect) / multiple) * multiple
        wide = math.floor(math.sqrt(max_area * aspect) / multiple) * multiple
        return _within_limits(wide, multiple), _within_limits(tall, multiple)
    ideal_width = math.sqrt(max_area * aspect)
    ideal_height = max_area / ideal_width
    first_width = int(ideal_width // multiple * multiple) or multiple
    first_height = int(max_area / first_width // multiple * multiple) or multiple
    second_height = int(ideal_height // multiple * multiple) or multiple
    second_width = int(max_area / second_height // multiple * multiple) or multiple
    first, second = first_width / first_height, second_width / second_height
    closer = max(aspect / first, first / aspect) < max(aspect / second, second / aspect)
    size = (first_width, first_height) if closer else (second_width, second_height)
    return _within_limits(size[0], multiple), _within_limits(size[1], multiple)


def _within_limits(side: int, multiple: int) -> int:
    return min(max(side, -(-MIN_SIDE // multiple) * multiple), MAX_SIDE // multiple * multiple)


def _check_size(problems: _Problems, variant: Variant, parameters: Parameters) -> None:
    multiple = variant.size_multiple
    valid = True
    for field in ("width", "height"):
        side = getattr(parameters, field)
        if side % multiple or not MIN_SIDE <= side <= MAX_SIDE:
            valid = False
            near = _nearest(side, multiple, MIN_SIDE, MAX_SIDE)
            problems.add(field, f"is {side}: use a multiple of {multiple} in [{MIN_SIDE}, {MAX_SIDE}], such as {near}")
    area = parameters.width * parameters.height
    if valid and area > MAX_AREA:
        height = MAX_AREA // parameters.width // multiple * multiple
        text = f"is {parameters.height}: {parameters.width} x {parameters.height} is {area} pixels"
        problems.add("height", f"{text}, at most {MAX_AREA} are served; with this width use at most {height}")


def _check_frames(problems: _Problems, variant: Variant, num_frames: int) -> None:
    if num_frames % TEMPORAL_STRIDE == 1 and 1 <= num_frames <= variant.max_frames:
        return
    lower = min(max((num_frames - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1, 1), variant.max_frames)
    upper = min(lower + TEMPORAL_STRIDE, variant.max_frames)
    near = f"{lower} or {upper}" if lower < num_frames < upper else str(lower)
    problems.add("num_frames", f"is {num_frames}: use 4n + 1 in [1, {variant.max_frames}], such as {near}")


def _check_experts(problems: _Problems, variant: Variant, parameters: Parameters) -> None:
    if variant.experts == 1:
        for field in ("guidance_scale_low", "boundary"):
            if getattr(parameters, field) is not None:
                problems.add(field, f"is given, but {variant.name} has one expert: leave it out")
        return
    problems.check_range("guidance_scale_low", _or(parameters.guidance_scale_low, math.nan), 1.0, 20.0)
    if parameters.boundary is not None and not 0.0 < parameters.boundary < 1.0:
        problems.add("boundary", f"is {parameters.boundary}: use a value between 0 and 1, such as {variant.boundary}")


def _check_images(problems: _Problems, variant: Variant, parameters: Parameters) -> None:
    if variant.image == "required" and parameters.image is None:
        problems.add("image", f"is missing: {variant.name} starts from an image; upload one by UploadMedia")
    if variant.image == "refused" and parameters.image is not None:
        problems.add("image", f"is given, but {variant.name} makes videos from text alone: leave it out, or use i2v")
    if not variant.last_image and parameters.last_image is not None:
        problems.add("last_image", f"is given, but {variant.name} takes no last frame: leave it out")
    if parameters.last_image is not None and parameters.num_frames == 1:
        problems.add("last_image", "is given, but a video of 1 frame has no other end: use 5 frames, or leave it out")
    for field in ("image", "last_image"):
        value = getattr(parameters, field)
        if value is not None:
            try:
                check_media(value, field)
            except InvalidRequest as error:
                problems.add(field, error.message.removeprefix(f"{field} ").rstrip("."))


def _check_loras(problems: _Problems, variant: Variant, loras: Sequence[Lora]) -> None:
    """What holds whatever the adapters are; a gateway has named their versions before."""
    if len(loras) > MAX_LORAS:
        problems.add("loras", f"has {len(loras)} adapters: use at most {MAX_LORAS}")
    used: set[tuple[str, int]] = set()
    for number, lora in enumerate(loras):
        field = f"loras[{number}]"
        try:
            VersionName.parse(lora.adapter)
        except InvalidRequest:
            problems.add(f"{field}.adapter", f"is {lora.adapter!r}: use models/{{model}}/versions/{{digest}}")
        problems.check_range(f"{field}.strength", lora.strength, -LARGEST_STRENGTH, LARGEST_STRENGTH)
        if variant.experts == 1 and lora.expert is not Expert.BOTH:
            problems.add(f"{field}.expert", f"is {lora.expert}, but {variant.name} has one expert: leave it out")
        experts = {(lora.adapter, index) for index in lora.expert.indexes(variant.experts)}
        if used & experts:
            problems.add(f"{field}.adapter", "is the same as one before, for the same expert: add up their strengths")
        used |= experts
