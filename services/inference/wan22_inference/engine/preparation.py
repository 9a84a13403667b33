"""What a generation needs before it denoises, made when it is asked for, or ahead of that beside another generation."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from wan22.parameters import Parameters
from wan22_inference.engine.images import read_image
from wan22_inference.engine.model import Model
from wan22_inference.engine.noise import draw_noise, latent_shape, make_generator
from wan22_inference.engine.sampling import Text


class Preparation:
    """Texts, images and noise of one generation, each made once; the same bits whenever that is."""

    def __init__(self, model: Model, parameters: Parameters, images: Mapping[str, bytes]) -> None:
        """`images` has the PNG of each media name in the parameters."""
        self.model = model
        self.parameters = parameters
        self._pngs = images
        self._lock = threading.Lock()
        """Of images and noise, which may be under way in another thread when they are asked for."""
        self._text: Text | None = None
        self._images: Mapping[str, Tensor] | None = None
        self._noise: tuple[Tensor, Tensor] | None = None

    def on_host(self) -> None:
        """Makes what the processor alone makes. Raises what `images` raises."""
        self.noise()
        self.images()

    def on_device(self) -> None:
        """Makes what takes the device for milliseconds, in the thread that computes. Raises what `text` raises.

        Texts wait for their turn where the text encoder must first be fetched, or computes for seconds on the host.
        """
        if self.model.text_encoder.at_hand:
            self.text()

    def text(self) -> Text:
        """The texts, encoded. Raises InvalidRequest for one that is too long."""
        if self._text is None:
            parameters = self.parameters
            texts = {"prompt": parameters.prompt}
            if any(scale is not None and scale > 1.0 for scale in _scales(parameters)):
                texts["negative_prompt"] = parameters.negative_prompt
            with torch.inference_mode():
                encoded = self.model.text_encoder.encode(texts, may_cut=parameters.cut_prompt)
            self._text = Text(encoded["prompt"], encoded.get("negative_prompt"))
        return self._text

    def images(self) -> Mapping[str, Tensor]:
        """Decoded images on the CPU, fitted to the output, by the parameters' field. Raises InvalidRequest."""
        with self._lock:
            if self._images is None:
                parameters = self.parameters
                self._images = {
                    field: read_image(self._pngs[media], field, parameters.width, parameters.height)
                    for field, media in (("image", parameters.image), ("last_image", parameters.last_image))
                    if media is not None
                }
            return self._images

    def noise(self) -> tuple[Tensor, Generator]:
        """The initial latents on the CPU, and the source of chance as it is after they were drawn."""
        parameters = self.parameters
        generator = make_generator(parameters.seed)
        with self._lock:
            if self._noise is None:
                shape = latent_shape(self.model.variant, parameters.width, parameters.height, parameters.num_frames)
                self._noise = draw_noise(shape, generator), generator.get_state()
            latents, state = self._noise
        generator.set_state(state)
        return latents, generator


def _scales(parameters: Parameters) -> tuple[float | None, float | None]:
    return parameters.guidance_scale_high, parameters.guidance_scale_low
