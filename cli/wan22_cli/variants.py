"""`wan22 variants`: what the gateway serves."""

from __future__ import annotations

from wan22_cli import failures, options
from wan22_cli.terminal import print_json, print_table


def variants(endpoint: options.Endpoint = None, json: options.Json = False) -> None:
    """Lists the served variants with what a request gets by default."""

    async def command() -> None:
        async with options.connect(endpoint) as client:
            served = await client.variants()
        if json:
            for variant in served:
                print_json(variant)
            return
        rows = []
        for variant in served:
            d = variant.defaults
            size = f"{d.width}x{d.height}, {d.num_frames} frames at {d.fps} fps, {d.num_inference_steps} steps"
            rows.append([variant.name, str(variant.ready_workers), size, variant.pool, variant.model_version])
        print_table(["VARIANT", "READY", "DEFAULT", "POOL", "MODEL VERSION"], rows)

    failures.run(command())
