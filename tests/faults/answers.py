"""Answers: what hubs, registries, restic and Ansible say, with something odd in it, spoken over a real connection."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import stat
from pathlib import Path
from typing import Any

from lab.core.problem import Problems
from tests.faults.fuzz import ask
from tests.faults.odd import harm, mutate
from tests.labs import TestLab
from tests.models import make
from tests.models.servers import Server, serving, sha256


def _odd_server(server: Server, dice: random.Random, chance: float = 0.6) -> None:
    plain, send = Server.json, server.send

    def answer(h: Any, value: Any, **headers: str) -> None:
        if dice.random() < chance:
            if dice.random() < 0.15:
                return send(h, 200, harm(dice, json.dumps(value).encode()), Content_Type="application/json")
            value = mutate(dice, value)
        return plain(server, h, value, **headers)

    server.json = answer  # type: ignore[method-assign]


def _taken(lab: TestLab, root: Path) -> None:
    """The model is fetched or refused; nothing lies outside the store and the state."""
    for words in (("lock",), ("apply", "--yes"), ("status",)):
        ask(lab, *words)
    for path in root.parent.iterdir():
        assert path.name in (root.name, "served"), path
    for path in root.iterdir():
        assert path.name in ("conf", "state", "store"), path


def hub(dice: random.Random, root: Path) -> None:
    """A hub or a mirror of it whose listings are odd."""
    shutil.rmtree(root.parent, ignore_errors=True)
    served = root.parent / "served"
    make.safetensors(served / "o/tiny")
    with serving(served) as server:
        _odd_server(server, dice)
        about = f"hub: o/tiny\nendpoint: {server.url}\n"
        _taken(TestLab.make(root, {"model/m": about}, ""), root)


def modelscope(dice: random.Random, root: Path) -> None:
    """ModelScope's own listing, odd."""
    shutil.rmtree(root.parent, ignore_errors=True)
    served = root.parent / "served"
    make.safetensors(served / "o/tiny")
    with serving(served) as server:
        _odd_server(server, dice)
        files = [
            {
                "Path": f.name,
                "Size": f.stat().st_size,
                "Sha256": sha256(f.read_bytes()),
                "Type": "blob",
                "Revision": "abc",
            }
            for f in (served / "o/tiny").iterdir()
        ]
        server.routes["/api/v1/models/o/tiny/repo/files"] = {"Data": {"Files": files}}
        _taken(TestLab.make(root, {"model/m": f"hub: o/tiny\nendpoint: {server.url}/modelscope\n"}), root)


def registry(dice: random.Random, root: Path) -> None:
    """An Ollama registry whose manifests are odd."""
    shutil.rmtree(root.parent, ignore_errors=True)
    served = root.parent / "served"
    served.mkdir(parents=True)
    make.gguf(served / "tiny.gguf")
    data = (served / "tiny.gguf").read_bytes()
    with serving(served) as server:
        _odd_server(server, dice)
        layers = [
            {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{sha256(data)}", "size": len(data)},
            {"mediaType": "application/vnd.ollama.image.params", "digest": f"sha256:{sha256(b'{}')}", "size": 2},
        ]
        server.routes["/v2/library/tiny/manifests/latest"] = {"schemaVersion": 2, "layers": layers}
        server.routes[f"/v2/library/tiny/blobs/sha256:{sha256(data)}"] = data
        server.routes[f"/v2/library/tiny/blobs/sha256:{sha256(b'{}')}"] = b"{}"
        _taken(TestLab.make(root, {"model/m": f"ollama: tiny\nendpoint: {server.url}\n"}), root)


def release(dice: random.Random, root: Path) -> None:
    """A release whose list of assets is odd."""
    shutil.rmtree(root.parent, ignore_errors=True)
    served = root.parent / "served"
    served.mkdir(parents=True)
    make.gguf(served / "tiny.gguf")
    with serving(served) as server:
        _odd_server(server, dice)
        asset = {
            "name": "tiny.gguf",
            "size": (served / "tiny.gguf").stat().st_size,
            "browser_download_url": f"{server.url}/tiny.gguf",
        }
        server.routes["/repos/o/tiny/releases/tags/v1"] = {"tag_name": "v1", "assets": [asset]}
        _taken(TestLab.make(root, {"model/m": f"release: o/tiny\ntag: v1\nendpoint: {server.url}\n"}), root)


SUMMARY = {
    "message_type": "summary",
    "files_new": 1,
    "files_changed": 0,
    "data_added": 10,
    "total_bytes_processed": 10,
    "snapshot_id": "abcdef0123",
}
SNAPSHOT = {
    "time": "2026-11-20T10:00:00Z",
    "tree": "a" * 64,
    "paths": ["/x"],
    "hostname": "lab",
    "id": "a" * 64,
    "short_id": "aaaaaaaa",
    "tags": ["lab"],
}


def restic(dice: random.Random, root: Path) -> None:
    """restic's lines and exit codes, odd: a program of that name that says them."""
    from lab.adapters.restic import Repository

    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    lines = [
        json.dumps(mutate(dice, v)) for v in ({"message_type": "status", "bytes_done": 1, "total_bytes": 2}, SUMMARY)
    ]
    said = "\n".join(lines).encode() if dice.random() < 0.5 else json.dumps(mutate(dice, [SNAPSHOT, SNAPSHOT])).encode()
    said = harm(dice, said) if dice.random() < 0.3 else said
    (root / "said").write_bytes(said)
    program = root / "bin/restic"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\ncat {root}/said\ncat {root}/said >&2\nexit {dice.choice([0, 0, 0, 0, 1, 3, 10, 12])}\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{program.parent}:{before}"
    try:
        repository = Repository(str(root / "repo"), lambda: "x")
        for work in (
            lambda: repository.backup([str(root)], [], ["lab"], lambda a, b: None),
            lambda: repository.snapshots("lab"),
            lambda: repository.init(),
            lambda: repository.check("1/2"),
            lambda: repository.forget({"daily": 1}, "lab"),
        ):
            with contextlib.suppress(Problems):
                work()
    finally:
        os.environ["PATH"] = before


def ansible(dice: random.Random, root: Path) -> None:
    """The events of a run, odd: each play has facts or a problem."""
    from lab.adapters.ansible import _answer, _Listener, _said
    from lab.core.step import Play

    class Stage:
        address = "guest.a"

        def say(self, text: str) -> None:
            assert isinstance(text, str)

    item = {
        "id": "guest.a",
        "changed": True,
        "facts": {"uid": 1},
        "done": ["made it"],
        "failed": False,
        "why": "",
        "do": "",
    }
    event = {
        "event": dice.choice(["runner_on_ok", "runner_on_failed"]),
        "event_data": {"role": "guest", "res": {"results": [item], "msg": "x"}},
    }
    listen = _Listener([Stage()])  # type: ignore[list-item]
    for _ in range(4):
        listen(mutate(dice, event))
    if listen.error is not None:
        raise listen.error
    play = object.__new__(Play)
    object.__setattr__(play, "role", "guest")
    _answer(play, Stage(), listen, "", _said(["fatal: b"]))  # type: ignore[arg-type]
