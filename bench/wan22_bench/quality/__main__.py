from __future__ import annotations

from wan22_bench.quality.command import main

main()
