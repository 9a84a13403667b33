"""Requests that are in order, one for each method that takes anything: what is wrong in one place alone gets far."""

from __future__ import annotations

from io import BytesIO

from google.protobuf.message import Message
from PIL import Image

from wan22.keda import externalscaler_pb2
from wan22.v1 import admin_pb2, generation_pb2, pool_pb2, webhook_pb2

from . import rows
from .scripted_worker import T2V

SLOTS = tuple(f"{number:08}-0000-4000-8000-000000000000" for number in range(4))
"""Stand for generations that are there, in what is drawn: put in their places when it is sent."""


def picture() -> bytes:
    data = BytesIO()
    Image.new("RGB", (64, 64), (1, 2, 3)).save(data, "PNG")
    return data.getvalue()


NAME = f"generations/{SLOTS[0]}"
WANTED = generation_pb2.Generation(
    variant=T2V,
    labels={"k": "v"},
    priority=generation_pb2.Generation.HIGH,
    preview_interval=1,
    parameters=generation_pb2.Parameters(prompt="a cat", width=64, height=64, num_frames=5, seed=7),
)
POOL = pool_pb2.Pool(
    name="pools/test.other", variant=T2V, model_version=rows.VERSION, max_workers=2, worker_targets=["localhost:1"]
)
TENANT = admin_pb2.Tenant(
    name="tenants/fuzz", weight=2, max_queued=9, max_running=9, gpu_seconds_per_day=1e6, max_media_bytes=1 << 30
)
WEBHOOK = webhook_pb2.Webhook(tenant="tenants/default", url="https://example.invalid/hook")
SCALED = externalscaler_pb2.ScaledObjectRef(scalerMetadata={"pool": rows.POOL, "objectiveSeconds": "25"})
GOOD: dict[str, Message] = {
    "CreateGeneration": generation_pb2.CreateGenerationRequest(generation=WANTED, request_id="r", count=2),
    "EstimateGeneration": generation_pb2.EstimateGenerationRequest(generation=WANTED),
    "GetGeneration": generation_pb2.GetGenerationRequest(name=NAME),
    "ListGenerations": generation_pb2.ListGenerationsRequest(page_size=2, labels={"k": "v"}),
    "WatchGeneration": generation_pb2.WatchGenerationRequest(name=NAME),
    "CancelGeneration": generation_pb2.CancelGenerationRequest(name=NAME),
    "DeleteGeneration": generation_pb2.DeleteGenerationRequest(name=NAME, force=True),
    "DownloadVideo": generation_pb2.DownloadVideoRequest(name=NAME, offset=1),
    "CreateDownloadUrl": generation_pb2.CreateDownloadUrlRequest(name=NAME),
    "GetRecipe": generation_pb2.GetRecipeRequest(name=NAME),
    "UploadMedia": generation_pb2.UploadMediaRequest(data=picture()),
    "ListUsage": generation_pb2.ListUsageRequest(days=1),
    "ApplyPool": pool_pb2.ApplyPoolRequest(pool=POOL),
    "DeletePool": pool_pb2.DeletePoolRequest(name=POOL.name, refuse_queued=True),
    "GetPool": pool_pb2.GetPoolRequest(name=POOL.name),
    "WatchPools": pool_pb2.WatchPoolsRequest(),
    "DrainWorker": pool_pb2.DrainWorkerRequest(name="workers/w1", allow_claimed=True),
    "UndrainWorker": pool_pb2.UndrainWorkerRequest(name="workers/w1"),
    "ApplyTenant": admin_pb2.ApplyTenantRequest(tenant=TENANT),
    "DeleteTenant": admin_pb2.DeleteTenantRequest(name=TENANT.name),
    "CreateKey": admin_pb2.CreateKeyRequest(key=admin_pb2.Key(tenant=TENANT.name, roles=[admin_pb2.USER])),
    "ApplyWebhook": admin_pb2.ApplyWebhookRequest(webhook=WEBHOOK, rotate_secret=True),
    "ListDeliveries": webhook_pb2.ListDeliveriesRequest(page_size=2),
    "IsActive": SCALED,
    "StreamIsActive": SCALED,
    "GetMetricSpec": SCALED,
    "GetMetrics": externalscaler_pb2.GetMetricsRequest(scaledObjectRef=SCALED, metricName="wan22-workers"),
}
"""Requests that are in order, by method: what is wrong in one place alone gets far."""
