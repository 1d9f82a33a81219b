"""A download ends with the right bytes under the final name, or with a clear problem and nothing there. (S0-5.2-2)

The server is a real one that drops, stalls, lies, ignores ranges, corrupts and throttles.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.adapters import download, http, store
from lab.adapters.download import Item, Net
from lab.core.problem import Problems
from tests.models.servers import Server, oid, serving, sha256

DATA = random.Random(7).randbytes(300_000)
QUICK = Net(timeout=0.4, tries=3, pause=0.01)


@pytest.fixture(autouse=True)
def _weights(server: Server) -> None:
    (server.root / "w.bin").write_bytes(DATA)


def get(server: Server, tmp_path: Path, net: Net = QUICK, **known: object) -> str:
    values: dict[str, object] = {"sha256": sha256(DATA), "size": len(DATA), **known}
    item = Item("w.bin", url=f"{server.url}/w.bin", **values)  # type: ignore[arg-type]
    return download.download(item, tmp_path / "store", net, lambda: None, lambda n: None)


def left(tmp_path: Path) -> list[str]:
    return sorted(f.name for f in (tmp_path / "store/incoming").iterdir())


@pytest.mark.parametrize(
    "faults",
    [
        ["cut:100000", "cut:50000"],
        ["stall:70000"],
        ["error:503", "error:500"],
        ["short:40000"],
        ["lie:1000"],
        ["flip"],
        ["cut:1000", "error:429", "stall:3000", "short:5000", "flip"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("ignores", [False, True], ids=["ranges", "no-ranges"])
def test_a_server_that_misbehaves_for_a_while_is_outlasted(
    server: Server, tmp_path: Path, faults: list[str], ignores: bool
) -> None:
    server.faults["w.bin"] = list(faults)
    server.ignore_range = ignores
    assert get(server, tmp_path) == sha256(DATA)
    assert store.path(tmp_path / "store", sha256(DATA)).read_bytes() == DATA
    assert left(tmp_path) == []


def test_bytes_that_came_are_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    server.faults["w.bin"] = ["cut:200000"]
    get(server, tmp_path)
    (first, _), (second, status) = server.gets("w.bin")
    assert first is None
    assert status == 206
    assert second == "bytes=200000-"


@pytest.mark.parametrize(
    ("faults", "known", "says"),
    [
        (["flip", "flip"], {}, "other bytes than declared"),
        ([], {"sha256": "0" * 64}, "other bytes than declared"),
        ([], {"sha256": "", "oid": "0" * 40}, "other bytes than declared"),
        (["cut:0"] * 9, {}, "cannot be reached"),
        (["error:500"] * 9, {}, "cannot be reached"),
        (["stall:0"] * 9, {}, "cannot be reached"),
    ],
)
def test_a_server_that_does_not_stop_is_a_problem_and_nothing_gets_the_final_name(
    server: Server, tmp_path: Path, faults: list[str], known: dict[str, str], says: str
) -> None:
    server.faults["w.bin"] = faults
    with pytest.raises(Problems, match=says) as found:
        get(server, tmp_path, **known)
    assert found.value.problems[0].do
    assert not (tmp_path / "store/blobs").exists()
    assert left(tmp_path) == [], "nothing is left that holds no bytes"


def test_a_refusal_leaves_nothing_and_what_came_is_kept(server: Server, tmp_path: Path) -> None:
    server.faults["w.bin"] = ["error:404"]
    with pytest.raises(http.Refused):
        get(server, tmp_path)
    assert left(tmp_path) == []
    server.faults["w.bin"] = ["cut:70000"] + ["cut:0"] * 3
    with pytest.raises(Problems, match="70,000 bytes are kept"):
        get(server, tmp_path)
    assert left(tmp_path) == [f"{sha256(DATA)}.json", f"{sha256(DATA)}.part"]
    get(server, tmp_path)
    assert left(tmp_path) == []


def test_gits_hash_of_a_small_file_is_checked(server: Server, tmp_path: Path) -> None:
    assert get(server, tmp_path, sha256="", oid=oid(DATA)) == sha256(DATA)


def test_a_file_that_changed_on_the_server_is_begun_anew(server: Server, tmp_path: Path) -> None:
    new = DATA[::-1]
    server.faults["w.bin"] = ["cut:100000"] + ["error:500"] * 3
    with pytest.raises(Problems):
        get(server, tmp_path, sha256="", size=None)
    (server.root / "w.bin").write_bytes(new)
    assert get(server, tmp_path, sha256="", size=None) == sha256(new)


def test_a_part_longer_than_the_file_and_a_damaged_note_are_no_obstacle(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "store/incoming"
    folder.mkdir(parents=True)
    for note in ("", "[]", "{", '{"url": 3, "synced": "x", "boot": 1}', '{"url": "http://elsewhere/"}'):
        (folder / f"{sha256(DATA)}.part").write_bytes(b"x" * 400_000)
        (folder / f"{sha256(DATA)}.json").write_text(note)
        assert get(server, tmp_path) == sha256(DATA)
        store.path(tmp_path / "store", sha256(DATA)).unlink()


def test_a_length_that_nobody_says_is_a_problem_unless_a_hash_is_declared(server: Server, tmp_path: Path) -> None:
    handler = server.http.RequestHandlerClass
    plain = handler.send_header
    handler.send_header = lambda h, k, v: None if k == "Content-Length" else plain(h, k, v)  # type: ignore[method-assign]
    handler.protocol_version = "HTTP/1.0"
    with pytest.raises(Problems, match="how long"):
        get(server, tmp_path, sha256="", size=None)
    assert get(server, tmp_path, size=None) == sha256(DATA)


def test_offline_refuses_every_host_but_loopback_also_behind_a_redirect(server: Server, tmp_path: Path) -> None:
    with pytest.raises(Problems, match="offline"):
        http.open_("http://192.0.2.1/x", offline=True)
    server.redirect["/away"] = "http://192.0.2.1/x"
    with pytest.raises(Problems, match="offline"):
        http.open_(f"{server.url}/away", offline=True)
    with http.open_(f"{server.url}/w.bin", offline=True) as response:
        assert response.read() == DATA


def test_a_token_is_not_carried_to_another_host(server: Server, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with serving(tmp_path / "other") as other:
        (other.root / "f").write_bytes(b"x")
        server.redirect["/to"] = other.url + "/f"
        http.open_(f"{server.url}/to", {"Authorization": "Bearer secret"}, offline=True).close()
        assert server.seen[-1]["Authorization"] == "Bearer secret"
        assert "Authorization" not in other.seen[-1]


PROGRAM = """
import sys
from pathlib import Path
from lab.adapters.download import Item, Net, download
url, sha, size, root = sys.argv[1:]
item = Item("w.bin", url=url, sha256=sha, size=int(size))
download(item, Path(root), Net(timeout=2), lambda: None, lambda n: None)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ignores", [False, True], ids=["ranges", "no-ranges"])
def test_twelve_kills_at_random_moments_and_the_next_attempt_finishes(
    server: Server, tmp_path: Path, ignores: bool
) -> None:
    words = [
        sys.executable,
        "-c",
        PROGRAM,
        f"{server.url}/w.bin",
        sha256(DATA),
        str(len(DATA)),
        str(tmp_path / "store"),
    ]
    blob = store.path(tmp_path / "store", sha256(DATA))
    moments = random.Random(3)
    server.throttle = 0.02
    server.ignore_range = ignores
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(words, cwd=Path(__file__).parents[2])
        before, deadline = len(server.log), time.monotonic() + moments.uniform(0.02, 0.2)
        while process.poll() is None and (len(server.log) == before or time.monotonic() < deadline):
            if len(server.log) == before:
                deadline = time.monotonic() + moments.uniform(0.02, 0.2)
            time.sleep(0.005)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        assert not blob.exists() or blob.read_bytes() == DATA
        if kills == 12:
            break
        if process.returncode == 0:
            blob.unlink()
    server.throttle = 0
    subprocess.run(words, cwd=Path(__file__).parents[2], check=True, timeout=60)
    assert kills == 12
    assert blob.read_bytes() == DATA
    assert left(tmp_path) == []
    assert [f.name for f in (tmp_path / "store").rglob("*") if f.is_file()] == [blob.name]
    if not ignores:
        assert any(r for r, _ in server.gets("w.bin"))
