"""Thousands of workers in one process, on nodes that are played there, too: what an operator is tried with at scale."""
