"""`wan22 models convert-pth`: a pickled checkpoint becomes safetensors, offline, in a process of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, cast

import typer

from wan22.bound_to_parent import bound_to_parent
from wan22.errors import FailedPrecondition, InvalidRequest, Reason
from wan22_cli import failures, options
from wan22_cli.terminal import out, print_json, transfer_progress


def convert_pth(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What torch pickled: .pth, .pt, .bin.")],
    target: Annotated[Path, typer.Argument(metavar="OUT.safetensors", help="Where to; must not be there yet.")],
    json: options.Json = False,
) -> None:
    """Converts a pickled checkpoint to safetensors; nothing of the pickle is run but what makes tensors."""

    async def command() -> None:
        if target.suffix != ".safetensors":
            raise InvalidRequest(f"{target} does not end in .safetensors: name it so.", field="target")
        if target.exists():
            raise InvalidRequest(f"{target} is there already: remove it, or give another name.", field="target")
        if importlib.util.find_spec("torch") is None:
            raise FailedPrecondition(
                "Pickles are read by torch, which is not installed: pip install 'wan22[inference]'."
            )
        with transfer_progress() as progress:
            task = progress.add_task("converting", total=None)
            await _run(file, target, lambda done, total: progress.update(task, completed=done, total=total))
        print_json({"converted": str(target)}) if json else out.print(f"{target} is written.", soft_wrap=True)

    failures.run(command())


async def _run(source: Path, target: Path, on_bytes: Callable[[int, int], object]) -> None:
    program = [sys.executable, "-P", "-m", "wan22.pickle_conversion", str(source), str(target)]
    with tempfile.TemporaryFile() as errors:
        process = await asyncio.create_subprocess_exec(
            *bound_to_parent(program), stdout=asyncio.subprocess.PIPE, stderr=errors
        )
        try:
            async for line in cast(asyncio.StreamReader, process.stdout):
                done, total = map(int, line.split())
                on_bytes(done, total)
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()
    if code == 1 and said:
        raise InvalidRequest(said.splitlines()[-1], field="file", reason=Reason.FORBIDDEN_FILE)
    if code:
        raise FailedPrecondition(f"The conversion of {source} ended with {code}: {said[-500:] or 'it said nothing'}.")
