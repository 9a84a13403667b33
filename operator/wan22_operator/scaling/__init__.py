"""How many workers a pool should have: a pure function of what was seen, without I/O and without a clock."""
