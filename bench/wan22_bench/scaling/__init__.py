"""Scaling policies compared on the same traces by one simulator."""
