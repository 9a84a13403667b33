"""A worker without an engine: the real protocol, with times taken from the cost model and small videos."""
