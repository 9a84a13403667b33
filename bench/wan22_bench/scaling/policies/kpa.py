"""Knative's pod autoscaler by concurrency, with the activator holding requests, given our choice of victims.

As in knative/serving, pkg/autoscaler/scaling/autoscaler.go (Scale) and
pkg/reconciler/autoscaling/kpa/scaler.go (handleScaleToZero).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil, floor, inf

from wan22_bench.scaling.policies.hpa import named_victims
from wan22_bench.scaling.simulator import Change, Simulation, State


@dataclass(frozen=True, kw_only=True)
class KpaSettings:
    """What config-autoscaler says; defaults are Knative's own, but for the target of one request a pod."""

    target: float = 1.0
    """Concurrent requests a pod, times the target utilization."""
    stable_window_seconds: float = 60.0
    panic_window_percent: float = 10.0
    panic_threshold: float = 2.0
    max_scale_up_rate: float = 1000.0
    max_scale_down_rate: float = 2.0
    scale_down_delay_seconds: float = 0.0
    last_pod_retention_seconds: float = 0.0


class Kpa:
    """Decides every 2 s, the autoscaler's tick."""

    period = 2.0
    eager = False

    def __init__(self, settings: KpaSettings) -> None:
        self.settings = settings
        self._samples: deque[tuple[float, float]] = deque([(-inf, 0.0)])
        self._panic_samples: deque[tuple[float, float]] = deque([(-inf, 0.0)])
        self._panic_since: float | None = None
        self._panic_pods = 0
        self._delayed: deque[tuple[float, int]] = deque()
        self._active_since = inf
        self._zero_since = inf

    def may_sleep(self, fleet: Simulation) -> bool:
        """Once all windows are empty."""
        window = max(self.settings.stable_window_seconds, self.settings.scale_down_delay_seconds)
        return fleet.now - self._zero_since > 2 * window

    def decide(self, fleet: Simulation) -> Change:
        """One tick."""
        stable = _average(self._samples, fleet, self.settings.stable_window_seconds)
        panic_window = self.settings.stable_window_seconds * self.settings.panic_window_percent / 100
        panic = _average(self._panic_samples, fleet, panic_window)
        staying = fleet.staying
        ready = sum(worker.state is not State.LOADING for worker in staying)
        desired = min(self.scale(fleet.now, stable, panic, ready), fleet.setup.max_workers)
        desired = self._handle_zero(fleet.now, desired, ready, len(staying))
        if desired >= len(staying):
            return Change(start=desired - len(staying))
        return Change(stop=named_victims(fleet, len(staying) - desired))

    def scale(self, now: float, stable: float, panic: float, ready_pods: int) -> int:
        """The desired pods, from the average concurrency of the two windows."""
        settings = self.settings
        ready = max(1, ready_pods)
        most = ceil(settings.max_scale_up_rate * ready)
        least = floor(ready / settings.max_scale_down_rate)
        for_stable, for_panic = ceil(stable / settings.target - 1e-9), ceil(panic / settings.target - 1e-9)
        desired = min(max(for_stable, least), most)
        in_panic = min(max(for_panic, least), most)
        if for_panic / ready >= settings.panic_threshold:
            self._panic_since = now
        elif self._panic_since is not None and self._panic_since + settings.stable_window_seconds < now:
            self._panic_since, self._panic_pods = None, 0
        if self._panic_since is not None:
            self._panic_pods = desired = max(desired, in_panic, self._panic_pods)
        if settings.scale_down_delay_seconds:
            desired = self._delay(now, desired)
        return desired

    def _delay(self, now: float, desired: int) -> int:
        while self._delayed and (self._delayed[0][0] <= now - self.settings.scale_down_delay_seconds):
            self._delayed.popleft()
        while self._delayed and self._delayed[-1][1] <= desired:
            self._delayed.pop()
        self._delayed.append((now, desired))
        return self._delayed[0][1]

    def _handle_zero(self, now: float, desired: int, ready: int, staying: int) -> int:
        """The last pod stays until it was active for a stable window; the activator is in the path all along."""
        if not ready:
            self._active_since = inf
        elif self._active_since == inf:
            self._active_since = now
        if desired:
            self._zero_since = inf
            return desired
        self._zero_since = min(self._zero_since, now)
        if staying and not ready:  # activating
            return staying
        if now - self._active_since < self.settings.stable_window_seconds:
            return min(1, staying)
        if now - self._zero_since < self.settings.last_pod_retention_seconds:
            return min(1, staying)
        return 0


def _average(samples: deque[tuple[float, float]], fleet: Simulation, window: float) -> float:
    """Of the outstanding requests over the last `window` seconds, or since the first after a silence as long."""
    now, integral = fleet.now, fleet.outstanding_integral
    if now - samples[-1][0] >= window:
        samples.clear()
        samples.append((now - Kpa.period, integral - fleet.outstanding * Kpa.period))
    samples.append((now, integral))
    while samples[1][0] <= now - window:
        samples.popleft()
    (start, before), (after_start, after) = samples[0], samples[1]
    if start < now - window:
        before += (after - before) * (now - window - start) / (after_start - start)
        start = now - window
    return (integral - before) / (now - start)
