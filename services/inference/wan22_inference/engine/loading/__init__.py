"""Weights from files into parameters: read past the page cache or out of it, decoded on the GPU or on the CPU."""
