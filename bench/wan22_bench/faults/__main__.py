from __future__ import annotations

from wan22_bench.faults.command import main

main()
