"""Benchmarks: each measures, beside the peer it compares itself with, and reports in one form."""
