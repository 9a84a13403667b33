"""What a stream of frames leaves behind for the frames that come next."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass
class History:
    """The last input frames of each causal convolution, for one tile of one video.

    Chunks of frames go through in order: the first latent frame's one frame, then four frames a latent frame (as many
    as the level has). Its tensors are never written to.
    """

    frames: dict[nn.Module, Tensor] = field(default_factory=dict)
    first: bool = True
    """No chunk has gone through yet; whoever runs the chunks clears it after one."""
