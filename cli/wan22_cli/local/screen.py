"""What `wan22 up` says: lines for people, or one JSON object a line."""

from __future__ import annotations

from typing import Any

from wan22_cli.terminal import out, print_json


class Screen:
    """Says what happens as it happens."""

    def __init__(self, *, json: bool) -> None:
        self._json = json

    def say(self, event: str, text: str, **facts: Any) -> None:
        """Prints a text for people; programs get the event's name, the facts and the text."""
        if self._json:
            print_json({"event": event, **facts, "text": text})
        else:
            out.print(text, markup=False, soft_wrap=True)
