"""How a worker's engine runs: the same for all its generations."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from wan22.economy import Economy


class TextEncoderPlace(StrEnum):
    """Where the text encoder's weights are; on a CPU worker all three are the same."""

    DEVICE = "device"
    """Always on the device: 11 GB of it in bfloat16."""
    HOST = "host"
    """In host memory, on the device while a text is encoded."""
    CPU = "cpu"
    """In host memory, and computed there: seconds instead of milliseconds, and other bits."""


@dataclass(frozen=True)
class Shortcuts:
    """Of a worker, for all its generations."""

    mag_cache: float | None = None
    """Error, by MagCache's estimate, up to which a step reuses what an earlier one's blocks added to the stream; the
    authors have 0.06. None reuses nothing."""
    guided_share: float = 1.0
    """Of each expert's steps the share, from its first on, that is guided; the others have no negative prompt."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Each is a setting of the worker."""

    threads: int = 1
    """Threads of a computation on the CPU."""
    text_encoder: TextEncoderPlace = TextEncoderPlace.DEVICE
    vram_limit: int | None = None
    """Most bytes of the device that may be used, contexts and libraries counted; None is all that it has."""
    vae_decode_dtype: str = "auto"
    """bfloat16, float16 (with bfloat16 where that overflows) or float32; auto is the compute dtype."""
    shortcuts: Shortcuts = field(default_factory=Shortcuts)
    """Which forwards are left out; none by default."""
    attention8: bool = False
    """Whether the DiT's self-attention is in float8 where the device can: faster, and less exact."""
    vae_tile: int | None = None
    """Latents a side of the VAE's tiles, for every generation; None decodes whole frames where they fit."""
    embedding_cache_bytes: int = 256 << 20
    """Host memory for the embeddings of texts used before; 4 MB a text of 512 tokens at full size."""

    @property
    def economy(self) -> Economy:
        """What every generation does to need less memory."""
        return Economy(encode_tile=self.vae_tile, decode_tile=self.vae_tile)

    def bits(self) -> dict[str, str]:
        """Those whose change may change the bits of a video, by name."""
        where = "cpu" if self.text_encoder is TextEncoderPlace.CPU else "device"
        bits = {"threads": str(self.threads), "text_encoder": where, "vae_decode_dtype": self.vae_decode_dtype}
        if self.attention8:
            bits["attention8"] = "yes"
        if self.shortcuts.mag_cache is not None:
            bits["mag_cache"] = str(self.shortcuts.mag_cache)
        if self.shortcuts.guided_share != 1.0:
            bits["guided_share"] = str(self.shortcuts.guided_share)
        return bits
