"""The gateway: a durable queue of generations, and the dispatcher that gives them to workers."""
