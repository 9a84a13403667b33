from __future__ import annotations

from wan22_bench.registry.command import main

main()
