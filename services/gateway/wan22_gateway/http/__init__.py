"""The gateway's HTTP port: the same admission and the same servicers as gRPC, behind routes."""
