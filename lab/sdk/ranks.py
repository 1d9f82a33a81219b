"""Ranks: several processes of one run through `mlx.launch`, whose own exit code says nothing of theirs.

    python -m lab.sdk.ranks PROGRAM N WORD…      starts N times `WORD…`; exits with the first rank's code that is not 0
    python -m lab.sdk.ranks WORD…                is one rank (`MLX_RANK` is set): notes the code it ended with

The launcher reads its standard input for the ranks, and spins where that is at its end: it is given a pipe that stays
open. Its ranks talk over consecutive ports: free ones are looked for, so that two runs do not meet.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

_NOTES = "LAB_RANKS"


def main() -> int:
    """All ranks where this is the start of them, else one."""
    if notes := os.environ.get(_NOTES):
        code = _run(sys.argv[1:])
        (Path(notes) / os.environ.get("MLX_RANK", "0")).write_text(str(code))
        return code
    program, count, words = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    with tempfile.TemporaryDirectory() as notes:
        os.environ[_NOTES] = notes
        rank = [sys.executable, "-m", "lab.sdk.ranks", *words]
        code = _run([program, "-n", str(count), "-p", str(_ports(count)), *rank])
        ended = {p.name: int(p.read_text()) for p in sorted(Path(notes).iterdir())}
    if missing := sorted({str(n) for n in range(count)} - set(ended)):
        print(f"lab: rank {', '.join(missing)} never said how it ended", file=sys.stderr)
        return code or 1
    # A rank that is ended because another failed dies of SIGTERM: the other's code is the reason.
    failed = sorted((c < 0, c) for c in ended.values() if c)
    return code or (abs(failed[0][1]) if failed else 0)


def _run(words: list[str]) -> int:
    """The exit code of a command that is asked to end when this process is; its standard input stays open."""
    child = subprocess.Popen(words, stdin=subprocess.PIPE)

    def end(number: int, _frame: object) -> None:
        with contextlib.suppress(OSError):
            child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    return child.wait()


def _ports(count: int) -> int:
    """The first of so many consecutive ports that are free now."""
    for _ in range(100):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError, OverflowError):
            first = held.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            for more in range(1, count):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port + more))
            return port
    return 32323


if __name__ == "__main__":
    sys.exit(main())
