"""What the tuned policies come to beside each other: the goals' rows, and tables of all figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from wan22_bench.report import Figures, Row
from wan22_bench.scaling.simulator import Outcome, Setup
from wan22_bench.scaling.tuning import OnCurve, Tuned, at_share

SHARES = {15.0: 0.99, 90.0: 0.99, 240.0: 0.9}
"""The share that policies are tuned to, by load time; fixed before any was tuned. A load of 240 s is longer than the
objective, so that who comes unexpected at zero workers is late whatever a policy does."""
GOALS_AT = 90.0
"""The load time of rows S1 to S4."""
COLUMNS = (
    "policy", "share in time", "GPU-hours", "of useful", "wait p50, s", "p95", "p99",
    "missed", "flaps", "regrets", "loads",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All policies at one load time."""

    setup: Setup
    tuned: Mapping[str, Tuned]
    """By the policy's name; ours is `wan22`."""
    foresight: Outcome
    """Of the held part, by one who knows all of it beforehand."""
    floor_hours: float
    """GPU-hours of the held part that no policy at all can go below at our share."""

    @property
    def ours(self) -> Tuned:
        """The operator's."""
        return self.tuned["wan22"]

    def peer(self, *names: str) -> OnCurve:
        """The best of the named at our measured share; one that never reaches it counts only if none does."""
        curves = [at_share(self.tuned[name].curve, self.ours.held_point.share) for name in names]
        return min(curves, key=lambda curve: (not curve.reached, curve.gpu_hours))


def goal_rows(comparisons: Mapping[float, Comparison]) -> list[Row]:
    """S1 to S5, and the same ratios at the other load times."""
    main = comparisons[GOALS_AT]
    rows = [
        _ratio("S1", main, "HPA or KEDA", ("HPA", "KEDA"), 0.8),
        _ratio("S2", main, "KPA with our choice of victims", ("KPA",), 0.95),
        _starts("S3", main),
        _useful("S4", main, 1.2),
    ]
    firsts = [_ratio(None, comparison, "HPA or KEDA", ("HPA", "KEDA"), 0.8) for comparison in comparisons.values()]
    worst = max(firsts, key=lambda row: row.value or 0.0)
    rows.append(replace(worst, id="S5", what=f"the worst of the load times: {worst.what}"))
    rows += [_foresight(comparison) for comparison in comparisons.values()]
    rows += [_flaps(main), _regrets(main)]
    for load, comparison in comparisons.items():
        if load != GOALS_AT:
            rows.append(_ratio(None, comparison, "HPA or KEDA", ("HPA", "KEDA"), 0.8))
            rows.append(_ratio(None, comparison, "KPA with our choice of victims", ("KPA",), 0.95))
            rows.append(_starts(None, comparison))
            rows.append(_useful(None, comparison, None))
    return rows


def held_table(comparison: Comparison) -> Figures:
    """Each policy as tuned, on the part held back."""
    title = f"Held part, load {comparison.setup.load_seconds:g} s, each tuned to the fewest GPU-hours in training"
    rows = [figures(name, tuned.held, comparison.setup) for name, tuned in comparison.tuned.items()]
    rows.append(figures("perfect foresight", comparison.foresight, comparison.setup))
    rows += [figures(f"{name}, defaults", tuned.default, comparison.setup) for name, tuned in comparison.tuned.items()]
    return Figures(title=title, columns=COLUMNS, rows=rows)


def figures(name: str, outcome: Outcome, setup: Setup) -> Sequence[str | float]:
    """One row of a table; the waits of nobody are 0."""
    waits = outcome.waits if len(outcome.waits) else np.zeros(1)
    p50, p95, p99 = (float(value) for value in np.quantile(waits, [0.5, 0.95, 0.99]))
    useful = outcome.useful_seconds / 3600
    missed = int((outcome.waits > setup.objective_seconds).sum())
    share = outcome.share_within(setup.objective_seconds)
    hours = outcome.gpu_hours
    return [
        name, f"{share:.4f}", f"{hours:.1f}", f"{hours / useful:.3f}", f"{p50:.0f}", f"{p95:.0f}", f"{p99:.0f}",
        str(missed), str(outcome.flaps), str(outcome.regrets), str(outcome.loads),
    ]  # fmt: skip


def _ratio(row_id: str | None, comparison: Comparison, peer: str, names: tuple[str, ...], goal: float) -> Row:
    ours, theirs = comparison.ours.held_point, comparison.peer(*names)
    reached = "" if theirs.reached else ", which never reaches it"
    floor = comparison.floor_hours / theirs.gpu_hours
    what = (
        f"GPU-hours over the best tuned {peer}'s at our share of {ours.share:.4f}{reached}, "
        f"load {comparison.setup.load_seconds:g} s ({ours.gpu_hours:.1f} over {theirs.gpu_hours:.1f}); "
        f"at that share no policy at all has less than {floor:.3f} ({comparison.floor_hours:.1f})"
    )
    value = ours.gpu_hours / theirs.gpu_hours
    return Row(id=row_id, what=what, value=value, unit="1", goal=goal, floor=floor)


def _starts(row_id: str | None, comparison: Comparison) -> Row:
    ours, theirs = comparison.ours.held_point, comparison.peer("KPA")
    what = (
        f"worker starts over the best tuned KPA's, load {comparison.setup.load_seconds:g} s "
        f"({ours.starts} over {theirs.starts:.0f})"
    )
    return Row(id=row_id, what=what, value=ours.starts / theirs.starts, unit="1", goal=0.5)


def _useful(row_id: str | None, comparison: Comparison, goal: float | None) -> Row:
    useful = comparison.ours.held.useful_seconds / 3600
    hours = comparison.ours.held_point.gpu_hours
    what = f"GPU-hours over the useful ones, load {comparison.setup.load_seconds:g} s ({hours:.1f} over {useful:.1f})"
    return Row(id=row_id, what=what, value=hours / useful, unit="1", goal=goal, floor=comparison.floor_hours / useful)


def _flaps(comparison: Comparison) -> Row:
    theirs = ", ".join(f"{name} {tuned.held.flaps}" for name, tuned in comparison.tuned.items() if name != "wan22")
    load = comparison.setup.load_seconds
    what = f"flaps: starts within a load time of a removal without an arrival in between, load {load:g} s ({theirs})"
    return Row(id=None, what=what, value=comparison.ours.held.flaps, unit="1", goal=0.0)


def _regrets(comparison: Comparison) -> Row:
    peers = {name: tuned.held.regrets for name, tuned in comparison.tuned.items() if name != "wan22"}
    others = ", ".join(f"{name} {count}" for name, count in peers.items())
    load, foresight = comparison.setup.load_seconds, comparison.foresight.regrets
    what = f"starts within a load time of a removal, load {load:g} s ({others}, perfect foresight {foresight})"
    return Row(id=None, what=what, value=comparison.ours.held.regrets, unit="1")


def _foresight(comparison: Comparison) -> Row:
    """What even knowing all arrivals, durations and load times would leave of the peers' GPU-hours."""
    theirs = comparison.peer("HPA", "KEDA")
    hours, load = comparison.foresight.gpu_hours, comparison.setup.load_seconds
    share = comparison.foresight.share_within(comparison.setup.objective_seconds)
    what = (
        f"for comparison: perfect foresight's GPU-hours, at a share of {share:.4f}, over the best tuned HPA or KEDA's "
        f"at ours, load {load:g} s ({hours:.1f} over {theirs.gpu_hours:.1f})"
    )
    return Row(id=None, what=what, value=hours / theirs.gpu_hours, unit="1")
