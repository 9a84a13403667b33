"""The inference worker: one process, one model version in memory, one attempt at a time."""
