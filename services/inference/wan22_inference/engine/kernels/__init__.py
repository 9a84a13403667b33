"""Triton kernels, each of one pass over memory; engine/fused_operations.py calls them."""

from wan22_inference.engine.kernels import launchers

launchers.use()  # before any kernel is launched
