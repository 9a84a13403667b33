"""Puts a worker together and serves it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from wan22.cache import Cache
from wan22_inference.adapters import Adapters
from wan22_inference.compute import Compute
from wan22_inference.engine.devices import choose_device
from wan22_inference.engine.options import EngineOptions, Shortcuts
from wan22_inference.gpu_sensor import GpuSensor
from wan22_inference.kernel_cache import keep_kernels
from wan22_inference.model_renderer import ModelRenderer
from wan22_inference.settings import WorkerSettings
from wan22_inference.weights import Weights
from wan22_inference.worker_server import Service, serve_worker


def serve(settings: WorkerSettings) -> AbstractAsyncContextManager[Service]:
    """A worker that answers at once, and loads its model meanwhile.

    Raises FailedPrecondition when another process has its scratch folder, InvalidRequest for a device that is not here.
    """
    compute = Compute(settings.threads)
    device = choose_device(settings.device)
    keep_kernels(settings.cache)
    cache = Cache(settings.cache, settings.cache_quota_bytes)
    weights = Weights(
        settings.model,
        registry=settings.registry,
        tls=settings.tls,
        cache=cache,
        device=device,
        compute=compute,
        options=EngineOptions(
            threads=settings.threads,
            text_encoder=settings.text_encoder,
            vram_limit=settings.vram_limit,
            vae_decode_dtype=settings.vae_decode_dtype,
            attention8=settings.attention8,
            shortcuts=Shortcuts(settings.mag_cache, settings.guided_share),
            vae_tile=settings.vae_tile,
            embedding_cache_bytes=settings.embedding_cache_bytes,
        ),
    )
    adapters = Adapters(settings.registry, cache, settings.adapter_cache_bytes, settings.tls)
    sensor = GpuSensor(device) if device.type == "cuda" else None
    renderer = ModelRenderer(weights, adapters, compute, settings.checkpoint_seconds, sensor)
    return serve_worker(settings, renderer)
