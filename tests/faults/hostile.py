"""Hostile: answers and files made to harm whoever reads them, each by a plan; beside `odd.py`, which makes real ones odd.

`python -m tests.faults.hostile headers|servers SECONDS SEED` goes on by itself.
"""

# ruff: noqa: E501

from __future__ import annotations

import gzip
import json
import os
import random
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lab.core.problem import Problems
from tests.faults.fuzz import ask
from tests.labs import TestLab

NAMES = (
    "../../../escaped", "/tmp/lab-escaped", "..", ".", "", "a/../../b", "..\\..\\x", "C:\\x", "a\nb", "a\x00b", "\u202egpj.x", "x" * 300,
    ".lab.json", "a//b", "model.safetensors/", "~/x", "-rf", "\ud800", "con", "a/./b", "x\r\nSet-Cookie: y", "＂．．／", "…/…/x",
)  # fmt: skip
HUGE = (2**31 - 1, 2**31, 2**32, 2**53, 2**60, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 10**30, -1, -(2**63), 0)
PLACES = (
    "file:///etc/passwd", "ftp://127.0.0.1/x", "http://169.254.169.254/latest/meta-data/", "http://metadata.google.internal/x",
    "http://[fe80::1]/x", "javascript:1", "//[::1", "", "data:,x", "http://user:word@127.0.0.1:1/x", "http://127.0.0.1:1/x", "HTTP://127.0.0.1:99999/",
    "http://127.0.0.1:x/", "\\\\host\\share", "http://0x7f.1/%00", "gopher://127.0.0.1:1/_x", "/" + "a" * 70000,
)  # fmt: skip
Send = Callable[[bytes], None]
BOMB = gzip.compress(b"\0" * (8 << 20))


def plain(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """A whole answer."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode("latin-1", "replace") + body


def endless(first: str, piece: bytes) -> Callable[[Send], None]:
    """An answer that never ends."""

    def go(send: Send) -> None:
        send(first.encode())
        for _ in range(1_000_000):
            send(piece)

    return go


def answers(dice: random.Random, url: str) -> Any:
    """What a hostile server says next: bytes, or a function that sends."""
    number = dice.choice([*map(str, HUGE), "\xb2", "9" * 5000, "1e3", "0x10", " 5", "+5", "5, 6", "nan"])
    other = dice.choice(HUGE)
    listed = [
        {
            "type": "file",
            "path": dice.choice(NAMES),
            "size": dice.choice([*HUGE, 3, None, "3", 1.5, True]),
            "oid": "0" * 40,
        }
    ]
    sha = {"sha": dice.choice(["a" * 40, "../" * 14, "A" * 40, 5, None]), "gated": dice.choice([[], {}, 5, "x\n"])}
    layers = [
        {
            "mediaType": dice.choice(NAMES),
            "digest": dice.choice(["sha256:" + "a" * 64, "sha256:../x", 5]),
            "size": other,
        }
    ]
    assets = [{"name": dice.choice(NAMES), "size": other, "browser_download_url": dice.choice([*PLACES, url + "/x"])}]
    scope = {"Data": {"Files": [{"Path": dice.choice(NAMES), "Size": other, "Sha256": "a" * 64}]}}
    body: Any = dice.choice(
        [
            listed,
            sha,
            {"layers": layers},
            {"assets": assets},
            scope,
            {**sha, "layers": layers, "assets": assets, **scope},
        ]
    )
    text = json.dumps(body).encode("utf-8", "surrogatepass")
    deep = b"[" * 200_000
    return dice.choice([
        plain(text), plain(text), plain(text), plain(text), plain(text), plain(text, f'Link: <{url}/more{dice.random()}>; rel="next"'),
        plain(text, f'Link: <{dice.choice(PLACES)}>; rel="next"'),
        plain(deep), plain(b'{"a":' * 100_000), plain(b"NaN"), plain(b'{"layers": NaN}'), plain(b"\xff\xfe" + "[]".encode("utf-16-le")),
        plain(text.replace(b"{", b'{"sha": "x", "sha": "y", ', 1)), plain(b""), plain(b"null"), plain(b"1" * 10_000),
        plain(b"", f"Location: {dice.choice(PLACES)}"[:65000], status="302 Found"),
        plain(b"", f"Location: {url}/again{dice.random()}", status=dice.choice(["301 Moved", "307 Again", "308 Gone", "302 F"])),
        plain(b"x", f"Retry-After: {dice.choice(['0', '-1', chr(0xb2), 'soon', '0.1'])}", status=dice.choice(["429 Slow", "503 No", "408 T"])),
        plain(b"x", status=dice.choice(["401 Who", "403 No", "404 No", "410 Gone", "416 Range", "418 Tea", "500 X", "204 Empty", "304 Same"])),
        f"HTTP/1.1 200 OK\r\nContent-Length: {number}\r\n\r\nabc".encode("latin-1"),
        f"HTTP/1.1 206 Part\r\nContent-Range: bytes 0-2/{number}\r\nContent-Length: 3\r\n\r\nabc".encode("latin-1"),
        f"HTTP/1.1 206 Part\r\nContent-Range: bytes {other}-{dice.choice(HUGE)}/{number}\r\nContent-Length: 3\r\n\r\nabc".encode("latin-1"),
        plain(BOMB, "Content-Encoding: gzip"), plain(b"abc", f"ETag: {number}", "Content-Encoding: br"),
        endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + b" " * 65536 + b"\r\n"),
        endless("HTTP/1.1 200 OK\r\n", b"X-More: " + b"x" * 1000 + b"\r\n"),
        endless("", b"HTTP/1.1 100 Continue\r\n\r\n"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 abc\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"HTTP/1.1 99999999999 x\r\n\r\n", b"\x16\x03\x01" + b"\0" * 99, b"", b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nno colon here\r\n: x\r\n\r\n[]", b"HTTP/1.1 200 OK\nContent-Length: 2\n\n[]", b"HTTP/1.1 200 " + b"x" * 70_000 + b"\r\n\r\n",
    ])  # fmt: skip


@contextmanager
def speaking(dice: random.Random) -> Iterator[str]:
    """A server that answers each request so; its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    over = threading.Event()

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(20)
            while b"\r\n\r\n" not in client.recv(1 << 16):
                pass
            said = answers(dice, url)
            if isinstance(said, bytes):
                client.sendall(said)
            else:
                until = time.monotonic() + 15

                def send(data: bytes) -> None:
                    if over.is_set() or time.monotonic() > until:
                        raise OSError
                    client.sendall(data)

                said(send)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield url
    finally:
        over.set()
        listener.close()


# --- files -----------------------------------------------------------------------------------------------------------


def safetensors(dice: random.Random) -> tuple[bytes, int]:
    """A file's first bytes, and how long it claims to be on disk (a sparse rest)."""
    size = dice.choice([16, 64, 1 << 20])
    one = {"dtype": dice.choice(["F32", "BF16", "U8", "X", "", 5, None]), "shape": [4], "data_offsets": [0, 16]}
    name = dice.choice([*NAMES, "a"])
    many: Any = {f"t{n}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * n, 4 * n + 4]} for n in range(4)}
    heads: list[Any] = [
        {name: one}, {name: {**one, "shape": [dice.choice(HUGE)]}}, {name: {**one, "shape": [dice.choice(HUGE)] * 50_000}},
        {name: {**one, "data_offsets": [dice.choice(HUGE), dice.choice(HUGE)]}}, {"a": one, "b": one}, many,
        {"a": {**one, "data_offsets": [0, 8]}, "b": {**one, "data_offsets": [4, 16]}}, {"__metadata__": dice.choice([many, [], "x", {"a": "b" * 10**6}])},
        {name: dice.choice([None, [], 5, "x", {}])}, [], None, 5, {name: {**one, "shape": dice.choice([None, "44", [1.5], [[4]], {}, [True]])}},
        {name: {**one, "data_offsets": dice.choice([None, [], [1], [0, 1, 2], "04", [0.5, 1], [None, 1]])}},
    ]  # fmt: skip
    head = json.dumps(dice.choice(heads)).encode("utf-8", "surrogatepass")
    raw = dice.choice([
        head, head, head, head, head.replace(b"16", b"NaN"), head.replace(b"[", b"[" * 99_999, 1), head[:-1], head + b" " * 100, b"\xff" + head,
        b'{"a":' + head + b',"a":' + head + b"}", b'{"t":[' + b"[]," * (1 << 22) + b"[]]}", b'"' + b"\xf0\x9f\x98\x80" * (1 << 22) + b'"',
    ])  # fmt: skip
    length = dice.choice([len(raw)] * 6 + [0, len(raw) + 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
    if dice.random() < 0.05:
        raw, length = b"{" + b"[]," * (30 << 20), 90 << 20
    return struct.pack("<Q", length) + raw, dice.choice([0, 8 + len(raw) + size, 8 + len(raw) + 16, 1 << 33])


def gguf(dice: random.Random) -> tuple[bytes, int]:
    """The same of GGUF: counts, lengths and types that lie."""

    def text(value: str, length: int | None = None) -> bytes:
        raw = value.encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(raw) if length is None else length % 2**64) + raw

    def value() -> bytes:
        kind = dice.choice([*range(14), 99])
        if kind == 8:
            return struct.pack("<I", 8) + text(dice.choice(NAMES), dice.choice([None, None, *HUGE, 1 << 26]))
        if kind == 9:
            inner, count = dice.choice([*range(13), 9, 9]), dice.choice([0, 1, 3, 65, 1000, 10**6, *HUGE])
            return struct.pack("<IIQ", 9, inner, count % 2**64) + dice.choice(
                [b"", bytes(64), struct.pack("<IQ", 9, 1000) * 999]
            )
        return struct.pack("<I", kind) + dice.randbytes(8)[: dice.choice([1, 2, 4, 8])]

    keys = [text(dice.choice([*NAMES, "general.architecture", "general.alignment", "tokenizer.ggml.tokens"])) + value()
            for _ in range(dice.choice([0, 1, 2, 50]))]  # fmt: skip
    tensors = [
        text(dice.choice([*NAMES, "token_embd.weight"]))
        + struct.pack("<I", n := dice.choice([0, 1, 2, 4, 9, 2**32 - 1]))
        + b"".join(struct.pack("<Q", dice.choice(HUGE) % 2**64) for _ in range(min(n, 9)))
        + struct.pack("<IQ", dice.choice([0, 1, 2, 99, 2**32 - 1]), dice.choice(HUGE) % 2**64)
        for _ in range(dice.choice([0, 1, 3]))
    ]
    counts = dice.choice(
        [(len(tensors), len(keys))] * 4
        + [(dice.choice(HUGE) % 2**64, dice.choice(HUGE) % 2**64), (999_999, 0), (0, 99_999)]
    )
    version = dice.choice([2, 3, 3, 3, 1, 0, 2**32 - 1])
    data = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(keys) + b"".join(tensors)
    return data, dice.choice([0, len(data) + 4096, 1 << 32, 1 << 34])


def place(folder: Path, dice: random.Random) -> None:
    """A model folder that holds one such file."""
    folder.mkdir(parents=True, exist_ok=True)
    kind, make = dice.choice([("model.gguf", gguf), ("model.safetensors", safetensors)])
    data, size = make(dice)
    with open(folder / kind, "wb") as f:
        f.write(data)
        if size > len(data):
            f.truncate(size)
    if dice.random() < 0.2:
        head: Any = dice.choice(
            [
                {"weight_map": {n: n for n in NAMES[:5]}},
                {"weight_map": {"a": "../x.safetensors"}},
                [],
                {"weight_map": 5},
            ]
        )
        (folder / "model.safetensors.index.json").write_text(json.dumps(head))


# --- trying them -----------------------------------------------------------------------------------------------------


def headers(dice: random.Random, root: Path) -> None:
    """Such a file is read, or refused in words."""
    from lab.adapters import headers as module

    place(root / "m", dice)
    with suppress(Problems):
        module.read(root / "m")


def servers(dice: random.Random, root: Path) -> None:
    """A model from such a server is locked and applied, or not, in words; nothing lies elsewhere."""
    with speaking(dice) as url:
        sources = (
            f"url: {url}/m.gguf\n", f"url: {url}/m.gguf\nsha256: {'a' * 64}\n", f"hub: o/m\nendpoint: {url}\n",
            f"hub: o/m\nendpoint: {url}/modelscope\n", f"ollama: m\nendpoint: {url}\n",
            f"release: o/m\ntag: v1\nendpoint: {url}\n",
        )  # fmt: skip
        lab = TestLab.make(root / "lab", {"model/m": dice.choice(sources) + "timeout: 3\n"})
        for words in (("lock",), ("apply", "--yes")):
            ask(lab, *words)
    assert {p.name for p in root.iterdir()} == {"lab"}
    assert {p.name for p in (root / "lab").iterdir()} <= {"conf", "state", "store"}


LIMIT, MEMORY = 40.0, 1 << 30
"""Seconds and bytes that a case may take."""


def alone(case: Callable[[random.Random, Path], None], seed: int) -> str:
    """What is wrong with a case, tried in a process of its own: what it raised, that it took too long or too much."""
    root = Path(tempfile.mkdtemp(prefix="lab-hostile-"))
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        said = ""
        try:
            os.close(read)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            case(random.Random(seed), root)
            took = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            said = f"it took {took >> 10} MiB" if took > MEMORY >> 10 else ""
        except BaseException as e:
            at = traceback.extract_tb(e.__traceback__)[-1]
            said = f"{type(e).__name__} {str(e)[:900]} at {at.filename}:{at.lineno}"
        finally:
            os.write(write, said.encode("utf-8", "replace"))
            os._exit(0)
    os.close(write)
    late = not select.select([read], [], [], LIMIT)[0]
    if late:
        os.kill(pid, signal.SIGKILL)
    said = "" if late else os.read(read, 1 << 16).decode()
    os.close(read)
    os.waitpid(pid, 0)
    shutil.rmtree(root, ignore_errors=True)
    return f"it took more than {LIMIT:.0f} s" if late else said


def main(what: str, seconds: float, seed: int) -> None:
    """Tries one after the other until the time is over; prints each find with its seed."""
    until, first = time.monotonic() + seconds, seed
    finds = 0
    while time.monotonic() < until:
        if said := alone({"headers": headers, "servers": servers}[what], seed):
            finds += 1
            print(f"seed {seed}: {said}", flush=True)
        seed += 1
    print(f"{what}: {seed - first} cases, {finds} finds")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
