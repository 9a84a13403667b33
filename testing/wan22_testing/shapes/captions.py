"""Says in varied English what a scene shows."""

from __future__ import annotations

import random

from wan22_testing.shapes.world import Group, Scene

_NUMBERS = {1: ("a", "one"), 2: ("two",), 3: ("three",)}
_NOUNS = {
    "circle": ("circle", "disc", "ball"),
    "ring": ("ring", "hoop"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
}
_VERBS = {
    "left": ("moves left", "moves to the left", "slides left", "goes from right to left"),
    "right": ("moves right", "moves to the right", "slides right", "goes from left to right"),
    "up": ("moves up", "rises", "goes upwards"),
    "down": ("moves down", "falls", "goes downwards"),
    "grows": ("grows", "gets bigger", "becomes larger"),
    "shrinks": ("shrinks", "gets smaller", "becomes smaller"),
    "turns": ("turns", "rotates", "spins"),
    "still": ("stays still", "rests", "stands still"),
}
_FORMS = ("{what}", "{what}.", "a video of {what}", "{what} on a {background} background", "{where}, {what}")
_LINKS = (" and ", " while ", ", ")


def caption(scene: Scene, rng: random.Random) -> str:
    """One of many ways to say it."""
    groups = list(scene.groups)
    rng.shuffle(groups)
    what = rng.choice(_LINKS).join(_clause(group, rng) for group in groups)
    where = f"on a {scene.background} background"
    text = rng.choice(_FORMS).format(what=what, background=scene.background, where=where)
    return text[0].upper() + text[1:] if rng.random() < 0.5 else text


def plain_caption(scene: Scene) -> str:
    """The plainest way, always the same."""
    return " and ".join(
        _say(group, _NUMBERS[group.number][0], group.shape, _VERBS[group.motion][0]) for group in scene.groups
    )


def vocabulary() -> list[str]:
    """All words that captions are made of."""
    texts = [*_FORMS, *_LINKS, *("on a dark background", "grey brown")]
    texts += [word for table in (_NOUNS, _VERBS, _NUMBERS) for choices in table.values() for word in choices]
    words = {word.strip(".,") for text in texts for word in text.split() if "{" not in word}
    both = words | {_singular_verb(word) for word in words} | {f"{noun}s" for ways in _NOUNS.values() for noun in ways}
    return sorted((both | {"boxes"}) - {"boxs", "downward", "upward", ""})


def _clause(group: Group, rng: random.Random) -> str:
    number, noun, verb = (
        rng.choice(ways) for ways in (_NUMBERS[group.number], _NOUNS[group.shape], _VERBS[group.motion])
    )
    return _say(group, number, noun, verb)


def _say(group: Group, number: str, noun: str, verb: str) -> str:
    article = "an" if number == "a" and group.colour == "orange" else number
    return f"{article} {group.colour} {_noun(group, noun)} {_verb(group, verb)}"


def _noun(group: Group, word: str) -> str:
    if group.number == 1:
        return word
    return "boxes" if word == "box" else f"{word}s"


def _verb(group: Group, words: str) -> str:
    """Agrees with the number: "a circle moves", "two circles move"."""
    if group.number == 1:
        return words
    verb, *rest = words.split(" ")
    return " ".join([_singular_verb(verb), *rest])


def _singular_verb(verb: str) -> str:
    if verb == "goes":
        return "go"
    return verb.removesuffix("s")
