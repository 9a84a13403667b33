"""The VAE's two directions: pixels to normalised latents, and latents to frames as they become ready."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from wan22.errors import InternalError, Reason
from wan22.variants import TEMPORAL_STRIDE
from wan22_inference.engine.devices import full_float32
from wan22_inference.engine.frame import Frame
from wan22_inference.engine.progress import Check
from wan22_inference.engine.vae.config import VaeConfig
from wan22_inference.engine.vae.decoder import Decoder, DecoderStream
from wan22_inference.engine.vae.encoder import Encoder, EncoderStream
from wan22_inference.engine.vae.frames import Gathered, ahead, put_pixels
from wan22_inference.engine.vae.patches import from_patches, to_patches
from wan22_inference.engine.vae.tiling import Piece

logger = logging.getLogger(__name__)


class Vae(nn.Module):
    """A VAE with uninitialised weights: build it on the meta device and fill it from a checkpoint.

    The same function as AutoencoderKLWan of diffusers and vae2_1.py and vae2_2.py of the official repository. It
    encodes in float32, since less is visibly worse, and decodes in `decode_dtype`: float32, bfloat16 or float16.
    """

    def __init__(self, config: VaeConfig, decode_dtype: torch.dtype) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, torch.float32)
        self.decoder = Decoder(config, decode_dtype)
        self._overflowed = False

    def to_channels_last(self) -> None:
        """Puts each weight's channels side by side in memory, as the activations have them."""
        formats = {4: torch.channels_last, 5: torch.channels_last_3d}
        for parameter in self.parameters():
            if parameter.ndim in formats:
                parameter.data = parameter.data.contiguous(memory_format=formats[parameter.ndim])

    @torch.inference_mode()
    def encode(self, video: Tensor, check: Check, *, side: int | None = None) -> Tensor:
        """The latents of pixels in [-1, 1], (1, 3, F, H, W), normalised: (1, C, (F - 1) / 4 + 1, h, w) float32.

        The mode of the posterior, as the official encoder gives it; nothing is drawn. `side` cuts frames into tiles of
        at most that many latents a side, which takes less memory and changes nothing but the last bits. `check` is
        called before each latent frame.
        """
        patches = to_patches(video, self.config.patch)

        def chunks() -> Iterator[Tensor]:
            for begin, end in _chunks(patches.shape[2]):
                check()
                yield patches[:, :, begin:end]

        stream = EncoderStream(self.encoder, patches.shape[3], patches.shape[4], side)
        mean, std = self._statistics(video.device)
        with full_float32():
            return (torch.cat(list(stream.encode(chunks())), dim=2).float() - mean) / std

    def decode(self, latents: Tensor, check: Check, *, side: int | None = None) -> Iterator[Frame]:
        """Yields the frames of normalised latents (1, C, T, h, w): one for the first latent frame, four for each other.

        The device decodes the next latent frame while the caller has the frames of this one. `side` cuts frames into
        tiles of at most that many latents a side, which takes less memory and changes nothing but the last bits; then
        all frames come at the end. Where float16 overflows, the rest of the video is decoded in bfloat16. Raises
        InternalError (NOT_FINITE) when pixels are NaN or infinite; `check` is called before each latent frame, of each
        tile, and may raise.
        """
        decoder, done = self.decoder, 0
        while True:
            gathered = Gathered()
            pieces, whole = self._pieces(decoder, latents, check, side)
            for piece, transfer in ahead(pieces):
                if not transfer.finite:
                    break
                if not whole:
                    gathered.put(piece, transfer, self.config.patch)
                elif piece.index >= done:
                    yield from transfer.frames()
                    done = piece.index + 1
            else:
                yield from gathered.frames()
                return
            if decoder.dtype is not torch.float16:
                raise _not_finite(piece.index + 1, latents.shape[2], decoder.dtype)
            self._tell_overflow(piece.index + 1)
            decoder = copy.deepcopy(self.decoder).to(torch.bfloat16)
            decoder.dtype = torch.bfloat16

    def decode_pixels(self, latents: Tensor, check: Check, *, side: int | None = None) -> Iterator[Tensor]:
        """Yields what `decode` makes frames of, (1, 3, 1 or 4, H, W), as the decoder gives it: uncut and unchecked."""
        pieces, whole = self._pieces(self.decoder, latents, check, side)
        if whole:
            yield from (piece.values for piece in pieces)
            return
        stride, results = self.config.spatial_stride, list[Tensor]()
        size = (latents.shape[3] * stride, latents.shape[4] * stride)
        for piece in pieces:
            if piece.index == len(results):
                results.append(piece.values.new_empty(*piece.values.shape[:3], *size))
            put_pixels(piece, results[piece.index], self.config.patch)
        yield from results

    def _pieces(
        self, decoder: Decoder, latents: Tensor, check: Check, side: int | None
    ) -> tuple[Iterator[Piece], bool]:
        """Pieces of pixels, and whether each is a whole frame."""
        mean, std = self._statistics(latents.device)
        stream = DecoderStream(decoder, latents.shape[3], latents.shape[4], side)

        def frames() -> Iterator[Tensor]:
            for index in range(latents.shape[2]):
                check()
                yield latents[:, :, index : index + 1].float() * std + mean

        def pieces() -> Iterator[Piece]:
            found = stream.decode(frames())
            while True:
                with torch.inference_mode():
                    piece = next(found, None)
                    if piece is None:
                        return
                    unpatched = replace(piece, values=from_patches(piece.values, self.config.patch))
                if not stream.levels.whole:
                    check()
                yield unpatched

        return pieces(), stream.levels.whole

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(values, device=device) for values in (self.config.mean, self.config.std))
        return mean.view(1, -1, 1, 1, 1), std.view(1, -1, 1, 1, 1)

    def _tell_overflow(self, latent_frame: int) -> None:
        if not self._overflowed:
            logger.warning("The VAE overflowed in float16 at latent frame %d: it goes on in bfloat16.", latent_frame)
        self._overflowed = True


def _chunks(num_frames: int) -> Iterator[tuple[int, int]]:
    """The first frame, then four at a time."""
    yield 0, 1
    for begin in range(1, num_frames, TEMPORAL_STRIDE):
        yield begin, begin + TEMPORAL_STRIDE


def _not_finite(latent_frame: int, count: int, dtype: torch.dtype) -> InternalError:
    text = (
        f"The decoded frames hold NaN or infinity, first in latent frame {latent_frame} of {count}, decoded in {dtype}"
        ": check the weights, or ask for another seed."
    )
    return InternalError(text, reason=Reason.NOT_FINITE, metadata={"latent_frame": str(latent_frame)})
