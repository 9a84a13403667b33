"""Makes a tiny variant's expert anew, in sizes of its own, which its stage then trains.

`python -m tools.new_expert t2v-a14b-tiny --layers 4 --width 160 --feed-forward 400 --out DIR` writes the high-noise one
into DIR, where the stages before it must have left their weights. Trainings in several folders show by
`tools.compare_trainings` which sizes are best; `wan22.variants` then gets them.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from tools.train_tiny.denoiser import HEAD, Family
from tools.train_tiny.run import Run

from wan22.variants import VARIANTS


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tools.new_expert", description=__doc__.partition("\n")[0])
    parser.add_argument("variant", choices=[name for name, variant in VARIANTS.items() if variant.small])
    parser.add_argument("--out", type=Path, required=True, help="the folder of all stages' weights")
    parser.add_argument("--low", action="store_true", help="the low-noise expert of two")
    parser.add_argument("--layers", type=int, required=True, help="how many")
    parser.add_argument("--width", type=int, required=True, help="channels, a multiple of a head's")
    parser.add_argument("--head", type=int, default=HEAD, help=f"channels of a head; {HEAD} by default")
    parser.add_argument("--feed-forward", type=int, required=True, help="its width inside")
    given = parser.parse_args()
    family = Family(Run("new", given.out, torch.device("cpu"), 0.0, None, None), given.variant)
    if given.head < 2 or given.head % 2:
        parser.error(f"--head is {given.head}: use an even number, since rotation takes channels in pairs")
    if given.width % given.head:
        parser.error(f"--width is {given.width}: use a multiple of {given.head}")
    if given.low and family.variant.experts == 1:
        parser.error(f"{given.variant} has one expert")
    name = family.names[given.low]
    shutil.rmtree(family.folder / name, ignore_errors=True)
    family.head = given.head
    family.variant = family.variant.sized(
        dim=given.width,
        num_layers=given.layers,
        ffn_dim=given.feed_forward,
        latent_channels=family.variant.latent_channels,
    )
    family.expert(int(given.low)).save_pretrained(family.folder / name)


if __name__ == "__main__":
    main()
