from __future__ import annotations

from wan22_bench.engine.command import main

main()
