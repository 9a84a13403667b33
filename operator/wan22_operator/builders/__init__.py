"""Wanted objects, made by pure functions of a pool and the settings."""
