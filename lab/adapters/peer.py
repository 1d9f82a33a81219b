"""Peer: one question and its answer over a unix socket, between accounts whose names the kernel vouches for."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LIMIT = 64 << 10
"""Bytes of a question at most."""
PATIENCE = 10.0
"""Seconds a peer may take to ask."""
AT_ONCE = 48
"""Questions answered side by side; whoever comes then waits in the kernel's queue."""
EACH = 6
"""Of them, from one account: who asks more is hung up on, so that nobody keeps the others waiting."""

Answer = Callable[[int, Mapping[str, Any]], Mapping[str, Any]]


class Refused(Exception):
    """A question that is none: too long, too slow, no JSON object."""


def uid(peer: socket.socket) -> int:
    """The user id of who connected, as the kernel says; never what the peer says of itself."""
    if sys.platform == "darwin":
        # struct xucred {u_int version; uid_t uid; short ngroups; gid_t groups[16]} of LOCAL_PEERCRED at SOL_LOCAL
        return int(struct.unpack_from("II", peer.getsockopt(0, 1, 76))[1])
    return int(struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


def listen(path: Path) -> socket.socket:
    """The socket, open to the group of its folder; one that nobody listens at any more makes room."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        server.bind(str(path))
    finally:
        os.umask(before)
    os.chmod(path, 0o660)  # nosec B103 # the folder's group is let in
    server.listen(64)
    return server


def serve(server: socket.socket, answer: Answer, refused: Callable[[int, str], None]) -> None:
    """Answers until the socket is closed, each peer in a thread of its own; `refused` hears of what was no question."""
    room, busy = threading.BoundedSemaphore(AT_ONCE), Counter[int]()

    def one(peer: socket.socket, who: int) -> None:
        try:
            with peer:
                try:
                    told = answer(who, _question(peer))
                except Refused as e:
                    refused(who, str(e))
                    told = {"code": 1, "err": f"✗ {e}"}
                with contextlib.suppress(OSError):
                    peer.sendall(json.dumps(told).encode() + b"\n")
        finally:
            busy[who] -= 1
            room.release()

    while True:
        try:
            peer, _ = server.accept()
        except OSError as e:
            if server.fileno() == -1 or e.errno in (errno.EINVAL, errno.EBADF):
                return
            time.sleep(0.05)  # no file is left for it, or it hung up already: no reason to answer nobody ever after
            continue
        try:
            who = uid(peer)
        except OSError:  # macOS does not tell of one that hung up
            peer.close()
            continue
        if busy[who] >= EACH:
            peer.close()
            continue
        room.acquire()
        busy[who] += 1
        threading.Thread(target=one, args=(peer, who), daemon=True).start()


def _question(peer: socket.socket) -> Mapping[str, Any]:
    data, end = b"", time.monotonic() + PATIENCE
    while not data.endswith(b"\n"):
        try:
            peer.settimeout(max(0.01, end - time.monotonic()))
            piece = peer.recv(LIMIT)
        except OSError:
            raise Refused("the question took too long") from None
        data += piece
        if len(data) > LIMIT:
            raise Refused(f"the question is longer than {LIMIT >> 10} KiB")
        if not piece:
            break
    try:
        found = json.loads(data)
    except ValueError:
        raise Refused("the question is no JSON") from None
    if not isinstance(found, dict):
        raise Refused("the question is no JSON object")
    return found


def ask(path: Path, question: Mapping[str, Any], timeout: float = 120.0) -> dict[str, Any]:
    """The answer to a question; OSError where nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        s.settimeout(timeout)
        s.connect(str(path))
        s.sendall(json.dumps(question).encode() + b"\n")
        with s.makefile("rb") as f:
            line = f.readline()
    if not line:
        raise ConnectionResetError("the broker hung up")
    found: dict[str, Any] = json.loads(line)
    return found
