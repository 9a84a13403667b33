"""Small real stand-ins that tests and benchmarks stand on."""
