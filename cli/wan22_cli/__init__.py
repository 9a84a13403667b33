"""The `wan22` command."""
