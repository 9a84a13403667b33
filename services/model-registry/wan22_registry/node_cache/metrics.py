"""What the node cache tells Prometheus, worked out at each scrape."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from wan22.cache import Cache
from wan22.v1.cache_pb2 import CachedVersion
from wan22_registry.node_cache.keeper import Keeper


class CacheMetrics(Collector):
    """Reads the counts of one folder; called by other threads."""

    def __init__(self, cache: Cache, keeper: Keeper, quota: int | None) -> None:
        self._cache = cache
        self._keeper = keeper
        self._quota = quota

    def collect(self) -> Iterator[Metric]:
        """Called by a scrape."""
        kept = list(self._keeper.kept.values())
        states = Counter(CachedVersion.State.Name(version.state).lower() for version in kept)
        versions = GaugeMetricFamily("wan22_cache_versions", "Versions to be kept, by state.", labels=["state"])
        for state in ("pending", "pulling", "present", "failed"):
            versions.add_metric([state], states[state])
        yield versions
        size = GaugeMetricFamily("wan22_cache_version_bytes", "Bytes of a version in all.", labels=["version"])
        done = GaugeMetricFamily("wan22_cache_version_done_bytes", "Bytes of it that are here.", labels=["version"])
        for name, version in {version.version: version for version in kept if version.version}.items():
            size.add_metric([name], version.size)
            done.add_metric([name], version.done)
        yield from (size, done)
        yield GaugeMetricFamily("wan22_cache_used_bytes", "Bytes of all blobs in the folder.", self._cache.used_bytes())
        if self._quota is not None:
            yield GaugeMetricFamily("wan22_cache_quota_bytes", "Most bytes of blobs.", self._quota)
        counts = self._cache.counts
        for name, text, value in (
            ("hits", "Blobs wanted that were here.", counts.hits),
            ("misses", "Blobs wanted that had to be pulled.", counts.misses),
            ("evicted_blobs", "Blobs removed to make room.", counts.evicted_blobs),
            ("evicted_bytes", "Bytes removed to make room.", counts.evicted_bytes),
            ("verified_bytes", "Bytes read again to find damage.", self._keeper.verified_bytes),
            ("damage_found", "Blobs found with other bytes than they should have.", self._keeper.damage_found),
        ):
            yield CounterMetricFamily(f"wan22_cache_{name}_total", text, value)
