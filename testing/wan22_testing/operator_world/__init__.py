"""A cluster and a gateway in memory and in simulated time, where everything that the operator calls may go wrong."""
