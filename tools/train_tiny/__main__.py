"""Trains the tiny WAN2.2 family: `python -m tools.train_tiny STAGE --out DIR --seconds 500`, stage by stage.

Each stage reads from DIR what earlier ones have left there, writes its weights every minute and at the end, and takes
up weights of its own that it finds; on one GPU a stage needs 10 minutes, and those in one row may run at once:

    judge     text      vae21     vae22
    t2v-high  t2v-low   i2v-high  i2v-low   ti2v
    turbo

`wan22 bench quality --models DIR` judges what is there.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tools.train_tiny import denoiser, judging, text, turbo, vae
from tools.train_tiny.run import Run

STAGES: dict[str, Callable[[Run], None]] = {
    "judge": judging.train,
    "text": text.train,
    "vae21": partial(vae.train, config=vae.CONFIG_21),
    "vae22": partial(vae.train, config=vae.CONFIG_22),
    "t2v-high": partial(denoiser.train, variant="t2v-a14b-tiny", number=0),
    "t2v-low": partial(denoiser.train, variant="t2v-a14b-tiny", number=1),
    "i2v-high": partial(denoiser.train, variant="i2v-a14b-tiny", number=0),
    "i2v-low": partial(denoiser.train, variant="i2v-a14b-tiny", number=1),
    "ti2v": partial(denoiser.train, variant="ti2v-5b-tiny", number=0),
    "turbo": turbo.train,
}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.train_tiny", description=__doc__.partition("\n")[0])
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--out", type=Path, required=True, help="the folder of all stages' weights")
    parser.add_argument("--seconds", type=float, default=500.0, help="how long to train")
    parser.add_argument("--batch", type=int, default=None, help="clips a step, where the stage's own are too many")
    parser.add_argument("--clips", type=int, default=None, help="clips to learn from, likewise")
    given = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    run = Run(given.stage, given.out, device, given.seconds, given.batch, given.clips)
    STAGES[given.stage](run)
    sys.stdout.write(f"{given.stage}: done, {run.out}\n")


if __name__ == "__main__":
    main()
