"""Which program of this machine plays an image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wan22_testing.process_kubelet.running import Hosted


@dataclass(frozen=True)
class Image:
    """A program in place of an image."""

    entrypoint: tuple[str, ...]
    """Its command line, before a container's `args`; a container's `command` replaces it."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Its own variables, below those of the container; {pod_ip}, {pod_name} and {node_name} stand for the pod's."""
    hosted: Hosted | None = None
    """Runs in the kubelet's own process, in place of one of its own: there may be thousands of them."""


class Images:
    """The images that there are, by name without tag and digest."""

    def __init__(self, images: Mapping[str, Image]) -> None:
        self._images = images

    def find(self, reference: str) -> Image | None:
        """The program that plays an image; None if there is no such image."""
        name = reference.partition("@")[0]
        head, slash, tail = name.rpartition("/")
        return self._images.get(f"{head}{slash}{tail.partition(':')[0]}")
