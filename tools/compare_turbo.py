"""Tells which of the turbo student's four steps loses videos, on prompts that no training and no benchmark has.

`python -m tools.compare_turbo DIR` lets the teacher (T) and the student (S) take turns along the four pieces of the
teacher's path, and prints for each order how many of the videos are read back right.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from tools.compare_trainings import Comparison
from tools.train_tiny import vae
from tools.train_tiny.denoiser import Examples
from tools.train_tiny.run import Run
from tools.train_tiny.turbo import Lesson
from torch import Tensor

from wan22_inference.engine.devices import choose_device

ORDERS = ("TTTT", "STTT", "TSTT", "TTST", "TTTS", "SSTT", "SSST", "SSTS", "STSS", "TSSS", "SSSS")


def made(lesson: Lesson, x: Tensor, given: Examples, order: str) -> Tensor:
    """Latents of noise, each piece by the teacher's many steps or the student's one."""
    for piece, who in enumerate(order):
        x = lesson.step(lesson.students, x, piece, given) if who == "S" else lesson.taught(x, piece, given)
    return x


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.compare_turbo", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="of trainings")
    parser.add_argument("--count", type=int, default=512, help="prompts; 512 by default")
    parser.add_argument("--side", type=int, default=128, help="pixels of their width and height; 128 by default")
    parser.add_argument("--orders", nargs="+", default=ORDERS, help="of T and S, for four pieces; by default eleven")
    given = parser.parse_args()
    lesson = Lesson(Run("turbo", given.folder, choose_device("auto"), 0.0, None, None), 0)
    comparison = Comparison("t2v-a14b-tiny", [given.folder], given.count, given.side)
    for order in given.orders:
        torch.manual_seed(9)
        right: list[bool] = []
        for scenes, asked in comparison.asked:
            noise = torch.randn(asked.latents.shape, device=asked.latents.device)
            latents = made(lesson, noise, asked, order)
            right += comparison.judge.right(vae.decode(lesson.family.vae, latents), scenes)
        sys.stdout.write(f"{order}: {sum(right)} of {len(right)} read right\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
