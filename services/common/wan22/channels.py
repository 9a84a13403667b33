"""gRPC options of both sides, which agree: silent streams stay open, dead peers are noticed."""

from __future__ import annotations

import grpc

from wan22.tls import Tls

CHUNK_BYTES = 1 << 20
"""Most payload bytes of one message of a byte stream; well under gRPC's default receive limit of 4 MiB."""

CHANNEL_OPTIONS = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]
SERVER_OPTIONS = [
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # the default, 300 s, ends our clients' connections
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),  # a port in use is an error, not a second server behind it
]


def open_channel(
    target: str, tls: Tls | None = None, *, role: str | None = None, longest_message: int | None = None
) -> grpc.aio.Channel:
    """Opens a channel to `host:port` with our keepalive; in plaintext without TLS files.

    With `role` the server's certificate must have that DNS name rather than the host's: pods are reached by address.
    `longest_message` is in bytes; without it it is gRPC's own, 4 MiB.
    """
    options: list[tuple[str, int | str]] = [*CHANNEL_OPTIONS]
    if longest_message is not None:
        options.append(("grpc.max_receive_message_length", longest_message))
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    if role is not None:
        options.append(("grpc.ssl_target_name_override", role))
    return grpc.aio.secure_channel(target, tls.channel_credentials(), options=options)
