"""`wan22 bench faults`: whether anything that was accepted is lost, doubled or spoilt while processes die."""
