"""What the tiny models show: generated videos read back by a judge, and what engine options change of that."""
