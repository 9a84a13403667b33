"""Trains the tiny WAN2.2 family: `python -m tools.train_tiny STAGE --out DIR --seconds 500`, stage by stage.

Each stage reads from DIR what earlier ones have left there, writes its weights now and then and at the end, and takes
up weights of its own that it finds; on one GPU a stage needs 10 minutes, and those in one row may run at once:

    text      vae21     vae22
    t2v-high  t2v-low   i2v-high  i2v-low   ti2v
    turbo
    turbo-low

Stages with DiTs want the judge in DIR (`python -m tools.train_judge`), and say what it reads; `wan22 bench quality
--models DIR` has it read the prompts that are held back.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from tools.train_tiny import denoiser, text, turbo, vae
from tools.train_tiny.run import Run, add_options, start

STAGES: dict[str, Callable[[Run], None]] = {
    "text": text.train,
    "vae21": partial(vae.train, config=vae.CONFIG_21),
    "vae22": partial(vae.train, config=vae.CONFIG_22),
    "t2v-high": partial(denoiser.train, variant="t2v-a14b-tiny", number=0),
    "t2v-low": partial(denoiser.train, variant="t2v-a14b-tiny", number=1),
    "i2v-high": partial(denoiser.train, variant="i2v-a14b-tiny", number=0),
    "i2v-low": partial(denoiser.train, variant="i2v-a14b-tiny", number=1),
    "ti2v": partial(denoiser.train, variant="ti2v-5b-tiny", number=0),
    "turbo": turbo.train,
    "turbo-low": partial(turbo.train, first=2),
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.train_tiny", description=__doc__.partition("\n")[0])
    parser.add_argument("stage", choices=STAGES)
    add_options(parser)
    given = parser.parse_args()
    STAGES[given.stage](start(given.stage, given))


if __name__ == "__main__":
    main()
