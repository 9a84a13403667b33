"""API keys: 256 random bits, of which the store has only a digest."""

from __future__ import annotations

import hashlib
import secrets
import string

PREFIX = "wan22_"
LENGTH = 43
"""Characters after the prefix: 62^43 is more than 2^256."""
ID_LENGTH = 8
"""Of these, the ones that name the key in lists; the other 35 have 208 bits."""
ALPHABET = string.digits + string.ascii_letters
_CHARACTERS = frozenset(ALPHABET)


def new_secret() -> str:
    """A new key."""
    number = secrets.randbits(256)
    characters = []
    for _ in range(LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        characters.append(ALPHABET[digit])
    return PREFIX + "".join(characters)


def is_well_formed(secret: str) -> bool:
    """Whether a text can be a key at all."""
    body = secret.removeprefix(PREFIX)
    return secret.startswith(PREFIX) and len(body) == LENGTH and _CHARACTERS.issuperset(body)


def digest(secret: str) -> str:
    """SHA-256, hex: what the store has of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


def id_of(secret: str) -> str:
    """What a key is called by."""
    return secret.removeprefix(PREFIX)[:ID_LENGTH]
