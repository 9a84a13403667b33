"""Pulls versions at random into a cache folder that has room for some of them: to be killed at any moment.

Arguments: the registry's address, the folder, its quota in bytes, a seed. Prints a line for each version it has held.
"""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import suppress
from pathlib import Path

from wan22.cache import Cache
from wan22.errors import NotFound, ResourceExhausted, Unavailable
from wan22.model_client import ModelClient


async def main(address: str, root: Path, quota: int, choices: random.Random) -> None:
    async with ModelClient(address) as client:
        while True:
            with suppress(NotFound, ResourceExhausted, Unavailable):  # deleted meanwhile, or the registry was killed
                versions = [version for model in await client.list_models() for version in model.versions]
                cached = await Cache(root, quota).pull(choices.choice(versions), client)
                cached.close()
                sys.stdout.write(f"{cached.version.name}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), random.Random(int(sys.argv[4]))))
