"""What the command writes: results on standard output, everything said about them on standard error."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console, RenderableType
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

out = Console(highlight=False)
"""Standard output."""
notes = Console(stderr=True, highlight=False)
"""Standard error."""
WIDE = 10_000
"""Columns of an output that is no terminal: one line a row."""


def as_dict(message: Message) -> dict[str, Any]:
    """Canonical proto JSON with the field names of the .proto files; 64-bit integers are strings."""
    return MessageToDict(message, preserving_proto_field_name=True)


def print_json(value: Message | Mapping[str, Any]) -> None:
    """Prints one object on one line."""
    typer.echo(json.dumps(as_dict(value) if isinstance(value, Message) else value, ensure_ascii=False))


def transfer_progress() -> Progress:
    """A bar of bytes on standard error, where that is a terminal."""
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    return Progress(*columns, console=notes, transient=True, disable=not notes.is_terminal)


def table_of(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    """Rows under headings; a value is folded where a terminal is too narrow, and never cut."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # markup in it is shown, not interpreted
    return table


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Prints a table, a line a row where the output is no terminal."""
    show(table_of(columns, rows))


def show(what: RenderableType) -> None:
    """Prints something that has a width."""
    console = out if out.is_terminal else Console(width=WIDE, highlight=False)
    console.print(what)


def note(text: str) -> None:
    """Says something beside the result; markup in it is shown, not interpreted."""
    notes.print(text, markup=False, soft_wrap=True)


def utc_time(time: Timestamp) -> str:
    """A time for people, to the second."""
    return time.ToDatetime().isoformat(sep=" ", timespec="seconds") + "Z"


def file_size(size: int) -> str:
    """Bytes for people."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.3g} {unit}" if unit != "B" else f"{size} B"
        amount /= 1000
    return f"{amount:.3g} TB"
