"""Files and servers made to harm: a problem in words, in bounded time and memory; and what they once brought down."""

from __future__ import annotations

import io
import json
import random
import struct
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lab.adapters import headers, http
from lab.core.problem import Problems
from tests.faults import hostile
from tests.labs import TestLab
from tests.models.servers import Server, serving


@pytest.mark.parametrize(("what", "count"), [("headers", 40), ("servers", 4)])
def test_some_hostile_cases(what: str, count: int) -> None:
    """The same each time."""
    found = {seed: said for seed in range(count) if (said := hostile.alone(getattr(hostile, what), seed))}
    assert not found, found


@pytest.mark.slow
@pytest.mark.parametrize(("what", "count"), [("headers", 300), ("servers", 40)])
def test_many_hostile_cases(what: str, count: int) -> None:
    """More of them."""
    found = {seed: said for seed in range(1000, 1000 + count) if (said := hostile.alone(getattr(hostile, what), seed))}
    assert not found, found


def test_what_is_too_much_is_noticed() -> None:
    """The bench itself: a fault, much memory."""

    def takes(dice: random.Random, root: Path) -> None:
        assert len(bytearray(b"x") * (1200 << 20))

    assert hostile.alone(takes, 1).startswith("it took 1")
    assert hostile.alone(lambda dice, root: [][0], 1).startswith("IndexError")


def refused(folder: Path) -> str:
    """Why a model folder is refused; empty where it is read."""
    try:
        headers.read(folder)
    except Problems as e:
        return str(e)
    return ""


def tensors(folder: Path, head: Any, size: int) -> Path:
    """A safetensors file with this header and so many bytes behind it."""
    raw = json.dumps(head).encode()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(size))
    return folder


@pytest.mark.parametrize(
    ("places", "size", "why"),
    [
        ({"a": (0, 16), "b": (16, 32)}, 32, ""),
        ({"a": (0, 16), "b": (0, 16)}, 32, "'b' begins at 0"),
        ({"a": (16, 32), "b": (16, 32)}, 32, "'a' begins at 16"),
        ({"a": (0, 32)}, 32, "its shape does not fill"),
    ],
)
def test_tensors_that_overlap_or_leave_holes(
    tmp_path: Path, places: Mapping[str, tuple[int, int]], size: int, why: str
) -> None:
    """Their sizes may add up to the file's all the same."""
    head = {n: {"dtype": "F32", "shape": [4], "data_offsets": p} for n, p in places.items()}
    assert why in refused(tensors(tmp_path / "m", head, size))


def test_headers_that_would_take_gigabytes(tmp_path: Path) -> None:
    """Lists in lists of a safetensors header, texts and lists of a GGUF file that is mostly a hole."""
    text = b"[[" + b"[]," * (9 << 20) + b"[]]]"
    (tmp_path / "s").mkdir()
    (tmp_path / "s/model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    (tmp_path / "t").mkdir()
    with open(tmp_path / "t/model.gguf", "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, 0, 90_000))
        for n in range(40):
            f.write(struct.pack("<Q", 1) + bytes([65 + n]) + struct.pack("<IQ", 8, 1 << 26))
            f.seek(1 << 26, 1)
        f.truncate(4 << 30)

    def reads(dice: random.Random, root: Path) -> None:
        for name in ("s", "t"):
            assert refused(tmp_path / name)

    assert hostile.alone(reads, 1) == ""


def test_a_vector_where_a_matrix_belongs(tmp_path: Path) -> None:
    """`token_embd.weight` with one dimension: its vocabulary is not known, and that is all."""
    name = b"token_embd.weight"
    tensor = struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, 8, 0, 0)
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + tensor + bytes(4096))
    refused(tmp_path)


@pytest.mark.parametrize("number", ["\xb2", "9" * 5000, "-5", "1e3", ""])
def test_a_number_that_is_none(tmp_path: Path, number: str) -> None:
    """In Content-Length and Retry-After; a superscript two is a digit to Python, and no number."""
    assert http.count(number) is None
    with serving(tmp_path) as server:

        def answer(h: Any) -> None:
            h.wfile.write(f"HTTP/1.1 503 No\r\nRetry-After: {number}\r\nConnection: close\r\n\r\n".encode("latin-1"))
            h.close_connection = True

        server.answer = answer  # type: ignore[method-assign]
        with pytest.raises(Problems, match="cannot be reached"):
            http.body(f"{server.url}/x", offline=False)


@pytest.mark.parametrize("size", ["-5", "zz", "9" * 40])
def test_a_chunk_whose_size_is_none(tmp_path: Path, size: str) -> None:
    """In a list, and in a file."""
    with serving(tmp_path / "served") as server:

        def answer(h: Any) -> None:
            h.wfile.write(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{size}\r\nabc\r\n".encode())
            h.close_connection = True

        server.answer = answer  # type: ignore[method-assign]
        with pytest.raises(Problems, match="cannot be reached"):
            http.body(f"{server.url}/x", offline=False)
        lab = TestLab.make(tmp_path / "lab", {"model/m": f"url: {server.url}/m.gguf\nsha256: {'a' * 64}\n"})
        lab.write("conf/lab.yaml", (lab.root / "conf/lab.yaml").read_text().replace("{", "{network: {tries: 1}, ", 1))
        ran = lab("apply", "--yes")
        assert ran.code == 1
        assert "a fault in Lab" not in ran.out + ran.err, ran


def _redirecting(server: Server, to: str) -> None:
    server.redirect["/m.gguf"] = to


@pytest.mark.parametrize("to", hostile.PLACES[:6])
def test_a_redirect_leads_to_no_file_and_no_machines_own_settings(tmp_path: Path, to: str) -> None:
    """Nor to another protocol, and an address that cannot be read is a problem."""
    with serving(tmp_path / "served") as server:
        _redirecting(server, to)
        lab = TestLab.make(tmp_path / "lab", {"model/m": f"url: {server.url}/m.gguf\n"})
        ran = lab("lock")
        assert ran.code == 1
        assert "a fault in Lab" not in ran.err
        assert not list((tmp_path / "lab/store").rglob("blobs/*/*"))


def test_nobody_leads_from_outside_to_this_machine() -> None:
    """A redirect of another host's to loopback is refused before it is asked."""
    import urllib.request

    asked = urllib.request.Request("https://example.org/x", headers={"Authorization": "Bearer x", "X-Key": "y"})
    follow = http.Redirect(False).redirect_request
    with pytest.raises(Problems, match="leads to this machine"):
        follow(asked, None, 302, "", {}, "http://127.0.0.1:1/x")
    new = follow(asked, None, 302, "", {}, "https://example.com/x")
    assert "Authorization" not in new.headers
    assert "X-key" not in new.headers


@pytest.mark.parametrize("kind", ["model", "dataset"])
@pytest.mark.parametrize("oid", ["../../../precious", "PRECIOUS", "A" * 64, "sha256:../../../precious", "a" * 63])
def test_a_hash_that_is_a_path_touches_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, oid: str
) -> None:
    """What a hub calls a hash names a partial download and its note: `precious.json` would have been written over."""
    precious = tmp_path / "precious.json"
    precious.write_text("mine")
    data = b'{"a": 1}\n'
    with serving(tmp_path / "served") as server:
        lfs = {"oid": oid.replace("PRECIOUS", str(tmp_path / "precious")), "size": len(data)}
        listed = [{"type": "file", "path": "a.jsonl", "size": len(data), "oid": "0" * 40, "lfs": lfs}]
        commit = "a" * 40
        server.routes["/api/datasets/o/d/tree/main"] = server.routes[f"/api/models/o/d/tree/{commit}"] = listed
        server.routes["/api/models/o/d/revision/main"] = {"sha": commit}
        server.routes["/datasets/o/d/resolve/main/a.jsonl"] = server.routes[f"/o/d/resolve/{commit}/a.jsonl"] = data
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        ran = TestLab.make(tmp_path / "lab", {f"{kind}/d": "hub: o/d\n"})("apply", "--yes")
    assert ran.code == 1
    assert "is none" in ran.out + ran.err
    assert precious.read_text() == "mine"
    assert {p.name for p in tmp_path.iterdir()} <= {"lab", "served", "precious.json"}
    assert not list((tmp_path / "lab/store/incoming").glob("*"))


@pytest.mark.parametrize(
    ("url", "sha256"),
    [("https://h/x/a.conda", "../../x"), ("https://h/x/..%2f..", "a" * 64), ("https://h/", "a" * 64)],
)
def test_an_archive_that_leads_elsewhere(tmp_path: Path, url: str, sha256: str) -> None:
    """A lock that was edited names no path outside the archives."""
    from lab.adapters import archives

    with pytest.raises(Problems, match="can be none"):
        archives.find(tmp_path, url, sha256)


def evil(channel: Path, name: str, members: list[tuple[tarfile.TarInfo, bytes | None]]) -> None:
    """A conda package whose archive holds these members besides."""
    from lab.adapters.channel import package

    made = package(channel, name, "1.0", files={"share/x": b"x"})
    with tarfile.open(made, "r:bz2") as old:
        whole = [(m, found.read() if (found := old.extractfile(m)) else None) for m in old.getmembers()]
    with tarfile.open(made, "w:bz2") as out:
        for member, data in [*whole, *members]:
            member.size = len(data or b"")
            out.addfile(member, io.BytesIO(data) if data is not None else None)


@pytest.mark.slow
def test_a_package_stays_in_its_prefix(tmp_path: Path) -> None:
    """Its archive names paths with dots, absolute ones, and goes through a link of its own."""
    from lab.adapters.channel import index

    escaped = tmp_path / "escaped"
    link = tarfile.TarInfo("ln")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
    packages: dict[str, list[tuple[tarfile.TarInfo, bytes | None]]] = {
        "dots": [(tarfile.TarInfo("../" * 12 + str(escaped)[1:]), b"out")],
        "absolute": [(tarfile.TarInfo(str(escaped)), b"out")],
        "through": [(link, None), (tarfile.TarInfo("ln/escaped"), b"out")],
    }
    for name, members in packages.items():
        evil(tmp_path / "channel", name, members)
    index(tmp_path / "channel")
    for name in packages:
        about = f"channels: ['{tmp_path}/channel']\nconda: [{name}]\nplatforms: [linux-64]\n"
        lab = TestLab.make(tmp_path / name, {"env/e": about})
        assert lab("lock").code == 0
        assert lab("apply", "--yes").code in (0, 1)
        assert not escaped.exists(), name
