"""Triton kernels, each of one pass over memory; engine/fused_operations.py calls them."""
