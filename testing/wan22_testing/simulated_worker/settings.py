"""The simulated worker's settings: the real worker's, and how it simulates."""

from __future__ import annotations

from pydantic import Field

from wan22_inference.settings import WorkerSettings


class SimulatedWorkerSettings(WorkerSettings):
    """Read once, in `__main__`.

    All flags of a real worker are taken, so that whatever starts one can start the other. Those of the engine, the
    cache and the device have no effect, but for those that name the numerics.
    """

    variant: str = ""
    """What the model is; then a `model` with its digest needs no registry. Else the registry is asked."""
    time_scale: float = Field(0.01, ge=0)
    """Seconds of this worker to one that a pool of which nothing is known would take."""
    step_seconds: float = Field(0.0, ge=0)
    """Least time of a denoising step, for a variant that is so small that its steps would take none."""
    load_seconds: float = Field(0.0, ge=0)
    """How long the weights take to load."""
    model_bytes: int = Field(1 << 30, ge=1)
    """Bytes of weights, where no registry tells."""
    gpu_utilization: float | None = Field(None, ge=0, le=1)
    """What its GPU's sensor says all the time; without it there is none."""
