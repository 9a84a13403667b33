"""`wan22 generate`: a prompt in, an MP4 out."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wan22.client import Client, LoraOption, ParameterOptions
from wan22.errors import InvalidRequest, NotFound, Reason, Wan22Error
from wan22.loras import Expert
from wan22.previews import MAX_INTERVAL
from wan22.profiles import Profile
from wan22.solvers import Solver
from wan22.status import from_status
from wan22.v1.generation_pb2 import Generation
from wan22.variants import MAX_PROMPT_TOKENS
from wan22_cli import failures, options
from wan22_cli.preview_file import PreviewFile
from wan22_cli.progress import ProgressBar
from wan22_cli.terminal import as_dict, file_size, note, notes, out, print_json

CANCEL_SECONDS = 10.0
"""How long Ctrl-C waits for the gateway to take the cancellation; a second Ctrl-C ends the command at once."""

Image = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, readable=True, help="First frame: required by i2v.")
]
LastImage = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, readable=True, help="Last frame, for i2v.")
]


class Priority(StrEnum):
    """How urgent a generation is among its tenant's."""

    LOW = "LOW"
    NORMAL = "NORMAL"
    HIGH = "HIGH"


@dataclass(frozen=True)
class _Terms:
    """What a request says beside its content."""

    labels: dict[str, str]
    count: int
    priority: Priority | None
    within: float | None
    keep_for: float | None
    reuse: bool
    webhook_url: str
    preview_interval: int


def generate(
    prompt: Annotated[str, typer.Argument(help="What to show.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", dir_okay=False, help="Where the MP4 goes.", show_default=False)
    ] = None,
    variant: Annotated[str | None, typer.Option(help="The model. Default: the one that is served.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What to avoid. Default: the model's own text.")] = None,
    image: Image = None,
    last_image: LastImage = None,
    seed: Annotated[int | None, typer.Option(help="Of the noise. Default: drawn, and shown.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    frames: Annotated[int | None, typer.Option(help="4n + 1.")] = None,
    fps: Annotated[int | None, typer.Option(help="Frames a second.")] = None,
    guidance_high: Annotated[float | None, typer.Option(help="Of the high-noise or only expert; 1 is off.")] = None,
    guidance_low: Annotated[float | None, typer.Option(help="Of the low-noise expert; 1 is off.")] = None,
    shift: Annotated[float | None, typer.Option(help="Of the sigmas, towards noise.")] = None,
    boundary: Annotated[float | None, typer.Option(help="Sigma from which on the high-noise expert runs.")] = None,
    solver: Annotated[Solver | None, typer.Option(help="Default: the variant's.", case_sensitive=False)] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ADAPTER[=STRENGTH][,EXPERT]", help="A LoRA adapter, such as style:v2=0.8,high. Repeatable."
        ),
    ] = None,
    profile: Annotated[Profile | None, typer.Option(help="Default: QUALITY.", case_sensitive=False)] = None,
    cut_prompt: Annotated[
        bool, typer.Option("--cut-prompt", help="Cut a text of more than 512 tokens rather than refuse it.")
    ] = False,
    omit_prompt: Annotated[
        bool, typer.Option("--omit-prompt", help="Leave the texts out of the recipe in the MP4.")
    ] = False,
    count: Annotated[int, typer.Option(min=1, max=4, help="Videos to make, by seed, seed + 1 …: out-1.mp4 …")] = 1,
    priority: Annotated[
        Priority | None, typer.Option(help="Among your own generations. Default: NORMAL.", case_sensitive=False)
    ] = None,
    within: Annotated[
        float | None, typer.Option(min=0.001, help="Seconds from now in which it must end: it fails rather than late.")
    ] = None,
    keep_for: Annotated[
        float | None,
        typer.Option(min=1, help="Seconds for which the video is kept. Default: the most that may be."),
    ] = None,
    reuse: Annotated[
        bool,
        typer.Option("--reuse", help="Take an earlier video of exactly the same, if there is one; needs --seed."),
    ] = False,
    webhook_url: Annotated[
        str, typer.Option(help="https:// address that is told of its end, in place of the tenant's.")
    ] = "",
    preview: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Where the newest preview goes while it runs: a WebP, often animated."),
    ] = None,
    preview_every: Annotated[int, typer.Option(min=1, max=MAX_INTERVAL, help="Steps between previews.")] = 1,
    label: options.Labels = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Print the generation's name and leave it to the queue.")
    ] = False,
    endpoint: options.Endpoint = None,
    json: options.Json = False,
) -> None:
    """Makes a video. Ctrl-C cancels it; a gateway's restart does not end it."""
    if not detach:
        check_output(output)
    elif preview is not None:
        raise typer.BadParameter("is of no use with --detach: nobody would write the file.", param_hint="--preview")
    if preview is not None:
        check_output(preview, "--preview")
    parameters: ParameterOptions = {
        "negative_prompt": negative_prompt,
        "seed": seed,
        "num_inference_steps": steps,
        "width": width,
        "height": height,
        "num_frames": frames,
        "fps": fps,
        "guidance_scale_high": guidance_high,
        "guidance_scale_low": guidance_low,
        "flow_shift": shift,
        "boundary": boundary,
        "solver": solver.value if solver else None,
        "loras": [parse_lora(text) for text in lora or ()],
        "profile": profile.value if profile else None,
        "cut_prompt": cut_prompt or None,
        "omit_prompt": omit_prompt or None,
    }
    terms = _Terms(
        options.parse_labels(label),
        count,
        priority,
        within,
        keep_for,
        reuse,
        webhook_url,
        preview_every if preview else 0,
    )

    async def command() -> None:
        async with options.connect(endpoint) as client:
            wanted = _create(client, variant, prompt, image, last_image, terms, parameters)
            creation = asyncio.create_task(wanted)
            try:
                await _follow(client, creation, None if detach else output, preview, json=json)
            except asyncio.CancelledError:
                await cancel_created(client, creation)
                raise

    failures.run(command())


def parse_lora(text: str) -> LoraOption:
    """Splits ADAPTER[=STRENGTH][,EXPERT]."""
    named, _, expert = text.partition(",")
    adapter, _, strength = named.partition("=")
    found: LoraOption = {"adapter": adapter}
    try:
        if strength:
            found["strength"] = float(strength)
        if expert:
            found["expert"] = Expert(expert.strip().upper()).value
    except ValueError:
        form = "use ADAPTER[=STRENGTH][,EXPERT], such as style:v2=0.8,high"
        raise typer.BadParameter(f"{text!r} is refused: {form}.", param_hint="--lora") from None
    return found


def check_output(output: Path | None, hint: str = "--output") -> None:
    """Refuses a path that no file can be written to, before any work is done for it."""
    if output is None:
        raise typer.BadParameter("is missing: say where the MP4 goes, or use --detach.", param_hint="--output")
    folder = output.absolute().parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise typer.BadParameter(f"{folder} is no folder that can be written.", param_hint=hint)


async def _create(
    client: Client,
    variant: str | None,
    prompt: str,
    image: Path | None,
    last_image: Path | None,
    terms: _Terms,
    parameters: ParameterOptions,
) -> Generation:
    variant = variant or await _only_variant(client)
    media = [None if path is None else (await client.upload_media(path)).name for path in (image, last_image)]
    return await client.create(
        variant=variant,
        prompt=prompt,
        image=media[0],
        last_image=media[1],
        labels=terms.labels,
        count=terms.count,
        priority=terms.priority.value if terms.priority else None,
        finish_within=terms.within,
        keep_for=terms.keep_for,
        reuse=terms.reuse,
        webhook_url=terms.webhook_url,
        preview_interval=terms.preview_interval,
        **parameters,
    )


async def _only_variant(client: Client) -> str:
    served = [variant.name for variant in await client.variants()]
    if not served:
        raise NotFound("No variant is served yet: start one by `wan22 up VARIANT`.", reason=Reason.VARIANT_NOT_SERVED)
    if len(served) > 1:
        raise InvalidRequest(f"Several variants are served: say which by --variant: {', '.join(served)}.")
    return served[0]


async def _follow(
    client: Client, creation: asyncio.Task[Generation], output: Path | None, preview: Path | None, *, json: bool
) -> None:
    with ProgressBar(notes) as bar:
        created = await asyncio.shield(creation)
        for field, tokens in sorted(created.cut_texts.items()):
            note(f"{field} had {tokens} tokens and was cut to {MAX_PROMPT_TOKENS}.")
        names = list(created.siblings) or [created.name]
        if output is None:
            for name in names:
                print_json(await client.get(name)) if json else typer.echo(name)
            return
        done: list[Generation] = []
        for name in names:
            shown = None if preview is None else PreviewFile(_numbered(preview, len(done) + 1, len(names)))
            async for event in client.watch(name):
                bar.show(event)
                if shown is not None and event.HasField("preview"):
                    shown.write(event.preview.image)
            done.append(await client.get(name))
            if done[-1].state == Generation.SUCCEEDED:
                await client.download(name, _numbered(output, len(done), len(names)))
    for number, generation in enumerate(done, 1):
        _print_result(generation, _numbered(output, number, len(done)), json=json)
    for generation in done:
        end_unless_succeeded(generation)


def _numbered(output: Path, number: int, count: int) -> Path:
    """The path itself, or of several a path with the number before its suffix."""
    return output if count == 1 else output.with_stem(f"{output.stem}-{number}")


def _print_result(generation: Generation, output: Path, *, json: bool) -> None:
    succeeded = generation.state == Generation.SUCCEEDED
    if json:
        print_json({**as_dict(generation), "path": str(output)} if succeeded else generation)
    elif succeeded:
        p = generation.parameters
        facts = [f"{p.width}x{p.height}", f"{p.num_frames} frames at {p.fps} fps", f"seed {p.seed}"]
        out.print(str(output), markup=False, soft_wrap=True)
        took = f"the video of {generation.reused_from}"
        if not generation.reused_from:
            seconds = generation.end_time.ToNanoseconds() / 1e9 - generation.start_time.ToNanoseconds() / 1e9
            took = f"{seconds:.1f} s"
        note(f"{generation.name}: {', '.join(facts)}, {file_size(generation.video.size_bytes)}, {took}.")


def end_unless_succeeded(generation: Generation) -> None:
    """Ends the command with 1 when a generation has no video, and says why."""
    if generation.state == Generation.SUCCEEDED:
        return
    if generation.state == Generation.FAILED:
        note(f"Error: {generation.name} failed: {from_status(generation.error).message}")
    else:
        note(f"Error: {generation.name} was cancelled.")
    raise typer.Exit(failures.FAILED)


async def cancel_created(client: Client, creation: asyncio.Task[Generation]) -> None:
    """Cancels what an interrupted command has made, or is just making, and says so."""
    try:
        async with asyncio.timeout(CANCEL_SECONDS):
            created = await creation
            names = list(created.siblings) or [created.name]
            for name in names:
                await client.cancel(name)
    except (Wan22Error, TimeoutError, asyncio.CancelledError):
        note("Interrupted. The generation may go on: see `wan22 generations list`.")
    else:
        note(f"Cancelled {', '.join(names)}.")
