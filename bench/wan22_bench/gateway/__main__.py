from __future__ import annotations

from wan22_bench.gateway.command import main

main()
