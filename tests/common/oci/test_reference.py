from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan22.errors import InvalidRequest
from wan22.oci.reference import OciReference

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "parts", "manifest"),
    [
        ("oci://ghcr.io/a/b", ("ghcr.io", "a/b", "latest", None), "latest"),
        ("oci://localhost:5000/m:v1.2_x", ("localhost:5000", "m", "v1.2_x", None), "v1.2_x"),
        (f"oci://r.example/models/wan2.2-t2v@{DIGEST}", ("r.example", "models/wan2.2-t2v", None, DIGEST), DIGEST),
        (f"oci://[::1]:5000/a__b/c--d:t@{DIGEST}", ("[::1]:5000", "a__b/c--d", "t", DIGEST), DIGEST),
    ],
)
def test_a_reference_is_taken_apart(text: str, parts: tuple[str, str, str | None, str | None], manifest: str) -> None:
    reference = OciReference.parse(text)
    assert (reference.host, reference.repository, reference.tag, reference.digest) == parts
    assert reference.manifest == manifest
    assert OciReference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        *("", "ghcr.io/a/b", "oci://ghcr.io", "oci://ghcr.io/", "oci://ghcr.io/A", "oci://ghcr.io/a/../b", "oci:///a"),
        *("oci://user@host/a", "oci://host/a:", "oci://host/a@sha256:abc", "oci://host/a b", "oci://host/a\n"),
        *("oci://host/" + "a/" * 130 + "a", "oci://host/-a", "https://host/a"),
    ],
)
def test_anything_else_is_refused_with_its_form(text: str) -> None:
    with pytest.raises(InvalidRequest, match="use oci://HOST"):
        OciReference.parse(text)


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_refused(rest: str) -> None:
    try:
        reference = OciReference.parse("oci://" + rest)
    except InvalidRequest:
        return
    assert OciReference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *((host, True) for host in ("localhost", "localhost:5000", "127.0.0.1:1", "[::1]:5000")),
        *((host, False) for host in ("127.example.com", "localhost.example.com", "10.0.0.1", "127.0.0.1.nip.io")),
    ],
)
def test_only_this_machine_is_local(host: str, local: bool) -> None:
    assert OciReference.parse(f"oci://{host}/a").is_local is local
