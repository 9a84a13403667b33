from __future__ import annotations

from wan22_bench.quality.command import main

if __name__ == "__main__":  # not where another process imports it
    main()
