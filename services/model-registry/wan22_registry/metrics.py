"""What the registry tells Prometheus."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from wan22.errors import DataLoss
from wan22.pack.layout import PACKED_SUFFIX
from wan22.pack.malformed import MalformedFile
from wan22.pack.reader import PackedFile
from wan22.v1 import model_pb2
from wan22_registry.blobs import BlobStore
from wan22_registry.index import Entry
from wan22_registry.versions import Versions

log = logging.getLogger(__name__)


class RegistryMetrics:
    """Counters of what is done."""

    def __init__(self, metrics: CollectorRegistry) -> None:
        self.lookups = Counter(
            "wan22_registry_lookups_total",
            "Blobs that a push asked for, by result: present (stored once, for several versions) or missing.",
            ["result"],
            registry=metrics,
        )
        self.pushed_bytes = Counter("wan22_registry_pushed_bytes_total", "Bytes of blobs taken in.", registry=metrics)
        self.read_bytes = Counter("wan22_registry_read_bytes_total", "Bytes of blobs sent.", registry=metrics)
        self.collected = Counter(
            "wan22_registry_collected_blobs_total", "Blobs removed since no version has them.", registry=metrics
        )
        self.reread_bytes = Counter(
            "wan22_registry_reread_bytes_total",
            "Bytes that the scrubber has read again.",
            registry=metrics,
        )
        for result in ("present", "missing"):
            self.lookups.labels(result)


class StoredVersions(Collector):
    """Gauges of what is stored, worked out at each scrape; in another thread than the registry's own work."""

    def __init__(self, blobs: BlobStore, versions: Versions, quota: int | None) -> None:
        self._blobs = blobs
        self._versions = versions
        self._quota = quota
        self._sizes: dict[str, tuple[int, int]] = {}
        """Stored and source bytes of each version seen, by digest: neither ever changes."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called by a scrape."""
        labels = ["model", "version"]
        stored = GaugeMetricFamily("wan22_registry_version_stored_bytes", "Bytes as stored.", labels=labels)
        source = GaugeMetricFamily("wan22_registry_version_source_bytes", "Bytes when unpacked.", labels=labels)
        ratio = GaugeMetricFamily("wan22_registry_version_ratio", "Stored bytes over unpacked bytes.", labels=labels)
        entries = self._versions.list_all()
        self._sizes = {entry.digest: sizes for entry in entries if (sizes := self._sizes_of(entry)) is not None}
        for entry in entries:
            if entry.digest in self._sizes:
                name, (packed, plain) = (entry.model, entry.digest), self._sizes[entry.digest]
                stored.add_metric(name, packed)
                source.add_metric(name, plain)
                ratio.add_metric(name, packed / plain)
        yield from (stored, source, ratio)
        usage = self._blobs.usage()
        yield GaugeMetricFamily("wan22_registry_versions", "Versions published.", len(entries))
        yield GaugeMetricFamily("wan22_registry_blobs", "Blobs stored, those of no version included.", usage.blobs)
        yield GaugeMetricFamily("wan22_registry_blob_bytes", "Bytes of the blobs, each stored once.", usage.blob_bytes)
        yield GaugeMetricFamily("wan22_registry_part_bytes", "Bytes of pushes not yet complete.", usage.part_bytes)
        yield GaugeMetricFamily("wan22_registry_damaged_blobs", "Blobs known to be damaged.", usage.damaged)
        if self._quota is not None:
            yield GaugeMetricFamily("wan22_registry_quota_bytes", "Most bytes of blobs and parts.", self._quota)

    def _sizes_of(self, entry: Entry) -> tuple[int, int] | None:
        """None for a damaged version, of which the log tells."""
        if entry.digest in self._sizes:
            return self._sizes[entry.digest]
        try:
            files = self._versions.message(entry).files
            return sum(file.size_bytes for file in files), sum(self._source_size(file) for file in files)
        except (DataLoss, MalformedFile, OSError) as error:
            log.warning("No metrics of %s: %s", entry.name, error)
            return None

    def _source_size(self, file: model_pb2.File) -> int:
        if not file.path.endswith(PACKED_SUFFIX):
            return file.size_bytes
        with PackedFile(self._blobs.path(file.digest)) as pack:
            return pack.layout.source_size
