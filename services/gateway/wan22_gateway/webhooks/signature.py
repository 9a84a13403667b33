"""Signatures by the Standard Webhooks convention: HMAC-SHA256 over id, time and body (standardwebhooks.com)."""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Sequence

PREFIX = "whsec_"
SECRET_BYTES = 32


def new_secret() -> str:
    """A new secret, as the receiver is given it."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signed_headers(message_id: str, seconds: int, body: bytes, signing: Sequence[str]) -> dict[str, str]:
    """The convention's three headers; with several secrets a signature by each, so that one can be replaced."""
    content = f"{message_id}.{seconds}.".encode() + body
    signatures = []
    for secret in signing:
        digest = hmac.digest(base64.b64decode(secret.removeprefix(PREFIX)), content, "sha256")
        signatures.append("v1," + base64.b64encode(digest).decode())
    return {"webhook-id": message_id, "webhook-timestamp": str(seconds), "webhook-signature": " ".join(signatures)}
