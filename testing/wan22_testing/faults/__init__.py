"""A campaign of random faults against real processes under load, and the verdict on what became of the work."""
