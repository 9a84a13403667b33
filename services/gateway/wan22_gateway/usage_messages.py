"""A tenant's quota and usage as messages."""

from __future__ import annotations

from wan22.errors import InvalidRequest
from wan22.v1 import generation_pb2
from wan22_gateway.lifecycle import timestamp
from wan22_gateway.store import media, tenants, usage
from wan22_gateway.store.database import Transaction
from wan22_gateway.store.usage import DAY

DEFAULT_DAYS, MAX_DAYS = 30, 366


def quota_message(tx: Transaction, tenant: str) -> generation_pb2.Quota:
    """What a tenant may have and has."""
    allowed, now = tenants.limits_of(tx, tenant), tenants.present(tx, tenant)
    return generation_pb2.Quota(
        tenant=f"tenants/{tenant}",
        weight=allowed.weight,
        max_queued=allowed.max_queued,
        queued=now.queued,
        max_running=allowed.max_running,
        running=now.running,
        gpu_seconds_per_day=allowed.gpu_seconds_per_day,
        gpu_seconds_today=now.gpu_seconds_today,
        gpu_seconds_predicted=now.predicted_seconds,
        max_media_bytes=allowed.max_media_bytes,
        media_bytes=media.kept_bytes(tx, tenant),
    )


def usage_message(
    tx: Transaction, tenant: str, request: generation_pb2.ListUsageRequest
) -> generation_pb2.ListUsageResponse:
    """What a tenant used. Raises InvalidRequest."""
    if not 0 <= request.days <= MAX_DAYS:
        text = f"days is {request.days}: use 1 to {MAX_DAYS}, or 0 for {DEFAULT_DAYS}."
        raise InvalidRequest(text, field="days")
    first = tx.now // DAY + 1 - (request.days or DEFAULT_DAYS)
    return generation_pb2.ListUsageResponse(
        usage=[
            generation_pb2.Usage(
                day=timestamp(row.day * DAY),
                variant=row.variant,
                generations=row.generations,
                succeeded=row.succeeded,
                gpu_seconds=row.gpu_seconds,
                videos=row.videos,
                video_bytes=row.video_bytes,
                reused=row.reused,
            )
            for row in usage.since(tx, tenant, first)
        ]
    )
