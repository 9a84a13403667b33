"""`wan22 usage`: what the caller's tenant may have, has, and has used."""

from __future__ import annotations

from typing import Annotated

import typer

from wan22.v1.generation_pb2 import Usage
from wan22_cli import failures, options
from wan22_cli.terminal import as_dict, file_size, out, print_json, print_table, utc_time


def usage(
    days: Annotated[int, typer.Option(min=1, max=366, help="Days back from today, UTC.")] = 30,
    endpoint: options.Endpoint = None,
    json: options.Json = False,
) -> None:
    """Shows the tenant's limits, what it has of them now, and what it used each day."""

    async def command() -> None:
        async with options.connect(endpoint) as client:
            quota, used = await client.quota(), await client.usage(days)
        if json:
            print_json({"quota": as_dict(quota), "usage": [as_dict(day) for day in used]})
            return
        running = f"{quota.max_running}" if quota.HasField("max_running") else "any"
        queued = f"{quota.max_queued}" if quota.HasField("max_queued") else "any"
        seconds = f"{quota.gpu_seconds_per_day:g}" if quota.HasField("gpu_seconds_per_day") else "any"
        out.print(f"{quota.tenant}, weight {quota.weight:g}")
        out.print(f"queued {quota.queued} of {queued}, running {quota.running} of {running}")
        today = f"GPU-seconds today {quota.gpu_seconds_today:.0f} of {seconds}"
        out.print(f"{today}, {quota.gpu_seconds_predicted:.0f} more under way")
        images = file_size(quota.max_media_bytes) if quota.HasField("max_media_bytes") else "any"
        out.print(f"images {file_size(quota.media_bytes)} of {images}")
        if used:
            columns = ["DAY", "VARIANT", "ENDED", "SUCCEEDED", "REUSED", "GPU-SECONDS", "VIDEOS", "BYTES"]
            print_table(columns, [_row(day) for day in used])

    failures.run(command())


def _row(day: Usage) -> list[str]:
    counts = [str(number) for number in (day.generations, day.succeeded, day.reused)]
    return [
        utc_time(day.day)[:10],
        day.variant,
        *counts,
        f"{day.gpu_seconds:.0f}",
        str(day.videos),
        file_size(day.video_bytes),
    ]
