"""What TokenizerProcess starts: `python -m wan22.tokenizer DESCRIPTOR FILE` answers each text with its tokens."""

from __future__ import annotations

import json
import signal
import sys
from array import array
from multiprocessing.connection import Connection
from pathlib import Path

from wan22.errors import FailedPrecondition
from wan22.tokenizer.local import LocalTokenizer


def main() -> int:
    """Tells the last token of each text, then answers until the connection ends. Returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's goes to all: who started this one ends it
    with Connection(int(sys.argv[1])) as connection:
        try:
            tokenizer = LocalTokenizer.read(Path(sys.argv[2]))
        except FailedPrecondition as error:
            connection.send_bytes(json.dumps({"misfit": error.message}).encode())
            return 1
        try:
            connection.send_bytes(json.dumps({"last_token": tokenizer.last_token}).encode())
            while True:
                text = connection.recv_bytes().decode()
                connection.send_bytes(array("I", tokenizer.ids(text)).tobytes())
        except (EOFError, OSError):
            return 0


if __name__ == "__main__":
    sys.exit(main())
