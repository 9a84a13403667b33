"""Fields that the gateway alone sets: a request that sets one is told so, since it would be neither obeyed nor kept."""

from __future__ import annotations

from collections.abc import Container, Iterator

from google.protobuf.message import Message

from wan22.errors import InvalidRequest, Violation


def violations(given: Message, taken: Container[str], field: str) -> Iterator[Violation]:
    """Yields one for each field of a resource, which a request has at `field`, that is set and is none of `taken`."""
    for descriptor, _ in given.ListFields():
        if descriptor.name not in taken:
            text = f"{descriptor.name} is set by the gateway alone: leave it out."
            yield Violation(f"{field}.{descriptor.name}", text)


def check(given: Message, taken: Container[str], field: str) -> None:
    """Raises InvalidRequest naming them."""
    problems = list(violations(given, taken, field))
    if problems:
        raise InvalidRequest(" ".join(problem.description for problem in problems), violations=problems)
