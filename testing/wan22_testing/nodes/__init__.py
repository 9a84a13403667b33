"""A real Kubernetes cluster of two nodes on this machine, for tests: `make cluster-up`."""
