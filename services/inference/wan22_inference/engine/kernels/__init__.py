"""Triton kernels, each of one pass over memory; engine/fused_operations.py calls them.

None is compiled for a size of a video: what depends on that is no constant of theirs, and is not specialised for.
"""

from wan22_inference.engine.kernels import launchers

launchers.use()  # before any kernel is launched
