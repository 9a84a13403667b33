"""KEDA: an HPA from one replica on; from and to zero by its own polling.

As in kedacore/keda, pkg/scaling/executor/scale_scaledobjects.go (RequestScale, scaleToZero, scaleFromZero).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from wan22_bench.scaling.policies.hpa import Hpa, HpaSettings, metric_value, reach
from wan22_bench.scaling.simulator import Change, Simulation


@dataclass(frozen=True, kw_only=True)
class KedaSettings(HpaSettings):
    """What a ScaledObject says; defaults are KEDA's own."""

    polling_seconds: float = 30.0
    cooldown_seconds: float = 300.0


class Keda:
    """Polls its scaler, and runs the HPA whenever there is a replica."""

    eager = False

    def __init__(self, settings: KedaSettings) -> None:
        self.settings = settings
        self.period = min(settings.polling_seconds, settings.sync_seconds)
        self._hpa = Hpa(settings)
        self._hpa.replicas = 0
        self._last_active = -inf

    def may_sleep(self, _fleet: Simulation) -> bool:
        """At zero nothing changes without work."""
        return self._hpa.replicas == 0

    def decide(self, fleet: Simulation) -> Change:
        """A poll, a sync, or both, as they are due."""
        if self._due(fleet.now, self.settings.polling_seconds):
            self._poll(fleet)
        if self._hpa.replicas and self._due(fleet.now, self.settings.sync_seconds):
            value = metric_value(fleet, self.settings.metric)
            self._hpa.replicas = self._hpa.recommend(fleet.now, value, fleet.setup.max_workers)
        return reach(fleet, self._hpa.replicas, self.settings)

    def _due(self, now: float, every: float) -> bool:
        """Whether it fell due since the last period; what would have been due in sleep is not made up."""
        return now % every < self.period

    def _poll(self, fleet: Simulation) -> None:
        if metric_value(fleet, self.settings.metric) > 0:
            self._last_active = fleet.now
            self._hpa.replicas = max(1, self._hpa.replicas)
        elif self._hpa.replicas and self._last_active + self.settings.cooldown_seconds < fleet.now:
            self._hpa.replicas = 0
