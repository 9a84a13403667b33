"""Model weights: how small they are kept, how fast they are packed and loaded, beside the peers and the hardware."""
