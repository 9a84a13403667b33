from __future__ import annotations

import time
import uuid

from wan22.identifiers import uuid7


def test_an_identifier_is_a_uuid_of_version_7() -> None:
    made = uuid.UUID(uuid7())

    assert (made.version, made.variant) == (7, uuid.RFC_4122)


def test_an_identifier_begins_with_the_milliseconds_of_its_making() -> None:
    before = time.time_ns() // 1_000_000

    made = uuid.UUID(uuid7()).int >> 80

    assert before <= made <= time.time_ns() // 1_000_000


def test_identifiers_of_one_millisecond_differ_in_all_their_random_bits() -> None:
    seen = [uuid.UUID(uuid7()).int for _ in range(1000)]
    ones = zeros = 0
    for value in seen:
        ones |= value
        zeros |= ~value

    assert len(set(seen)) == len(seen)
    random_bits = ((1 << 76) - 1) & ~(0b11 << 62)
    assert ones & zeros & random_bits == random_bits
