"""What keeps a wanted worker from coming, in words, which the operator says and the gateway passes on to who waits."""

from __future__ import annotations

LONGEST_OBSTACLE = 1000
"""Characters that `Pool.obstacle` may have: the operator cuts it, and the gateway refuses more."""
