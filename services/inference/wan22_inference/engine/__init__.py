"""WAN2.2 itself: from parameters and weights to an MP4. Runs from a path alone, without gRPC or generated code."""
