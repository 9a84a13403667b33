from collections.abc import Callable

import pytest

from wan22 import names
from wan22.errors import InvalidRequest
from wan22.names import VersionName, VersionReference

DIGEST = "sha256:" + "0f" * 32
UUID = "0b8c6e8e-5d0a-4d3e-9f43-1c2d3e4f5a6b"


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (names.check_generation, f"generations/{UUID}"),
        (names.check_pool, "pools/local.t2v-a14b-tiny"),
        (names.check_worker, "workers/t2v-a14b-tiny-0.wan22"),
    ],
)
def test_a_good_name_is_returned_and_a_wrong_one_is_refused_with_its_form(
    check: Callable[[str], str], name: str
) -> None:
    assert check(name) == name
    for wrong in ("", name.upper(), f"{name}/x", name.partition("/")[2], f" {name}", f"{name}\n"):
        with pytest.raises(InvalidRequest) as caught:
            check(wrong)
        assert caught.value.message.startswith(f"name is {wrong!r}: use {name.partition('/')[0]}/{{")
        assert [violation.field for violation in caught.value.violations] == ["name"]


def test_media_digests_models_and_tags_are_checked_under_their_own_field() -> None:
    assert names.check_media(f"media/{'0f' * 32}", "image") == f"media/{'0f' * 32}"
    assert names.check_digest(DIGEST, "digest") == DIGEST
    assert names.check_model("wan2.2-t2v-a14b") == "wan2.2-t2v-a14b"
    assert names.check_tag("fp8_v1.0") == "fp8_v1.0"
    for check, field, wrong in (
        (lambda text: names.check_media(text, "image"), "image", "media/0f"),
        (lambda text: names.check_digest(text, "digest"), "digest", "0f" * 32),
        (names.check_model, "model", "-t2v"),
        (names.check_tag, "tags", "a b"),
    ):
        with pytest.raises(InvalidRequest, match=f"^{field} is '{wrong}': use ") as caught:
            check(wrong)
        assert caught.value.violations[0].field == field


def test_a_version_name_is_taken_apart_and_written_as_it_was() -> None:
    version = VersionName.parse(f"models/wan2.2-ti2v-5b/versions/{DIGEST}")
    assert (version.model, version.digest) == ("wan2.2-ti2v-5b", DIGEST)
    assert str(version) == f"models/wan2.2-ti2v-5b/versions/{DIGEST}"
    with pytest.raises(InvalidRequest, match=r"use models/{model}/versions/{digest}"):
        VersionName.parse("models/wan2.2-ti2v-5b/versions/latest")


@pytest.mark.parametrize(
    ("reference", "tag", "digest", "written"),
    [
        ("m", "latest", None, "m:latest"),
        ("m:fp8", "fp8", None, "m:fp8"),
        (f"m@{DIGEST}", None, DIGEST, f"m@{DIGEST}"),
        (f"m:fp8@{DIGEST}", "fp8", DIGEST, f"m:fp8@{DIGEST}"),
    ],
)
def test_a_reference_has_the_tag_latest_only_when_neither_tag_nor_digest_is_given(
    reference: str, tag: str | None, digest: str | None, written: str
) -> None:
    parsed = VersionReference.parse(reference)
    assert (parsed.model, parsed.tag, parsed.digest, str(parsed)) == ("m", tag, digest, written)


@pytest.mark.parametrize("reference", ["", "m:", "m@sha256:0f", f"m@{DIGEST}:fp8", "m n", "M"])
def test_a_wrong_reference_is_refused_with_its_form(reference: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        VersionReference.parse(reference)
    assert caught.value.message == f"reference is {reference!r}: use MODEL[:TAG][@sha256:DIGEST]."
