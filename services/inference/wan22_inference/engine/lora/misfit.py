"""The error for a LoRA file that is not what its variant can use."""

from __future__ import annotations

from wan22.errors import FailedPrecondition, Reason


def misfit(what: str) -> FailedPrecondition:
    """Says why the file cannot be used."""
    return FailedPrecondition(f"The adapter does not fit: {what}.", reason=Reason.ADAPTER_MISFIT)
