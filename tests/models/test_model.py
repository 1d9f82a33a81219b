"""A model is created, drifts, is repaired and destroyed as declared. (S0-5.2-2, S0-US-004-2, S0-8.2-1)"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lab.adapters import store
from lab.core.change import Action
from lab.core.facts import differences
from lab.core.problem import Problems, Unknown
from lab.kinds.model import Model
from tests.models.doubles import Context, World
from tests.models.lifecycle import apply
from tests.models.servers import Server, sha256


def put(server: Server, name: str, data: bytes) -> str:
    file = server.root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return sha256(data)


def test_one_flipped_byte_is_drift_named_by_file_and_only_that_file_is_fetched_again(
    tmp_path: Path, server: Server
) -> None:
    files = {n: b"%d" % i * 50_000 for i, n in enumerate(("a.txt", "sub/b.txt", "c.txt"))}
    hashes = {n: put(server, n, d) for n, d in files.items()}
    model = Model.model_validate({"url": {n: {"url": f"{server.url}/{n}", "sha256": h} for n, h in hashes.items()}})
    context = Context(str(tmp_path), str(tmp_path / "store"))
    assert model.observe(World(), context) is None
    facts = apply(model, context, tmp_path)
    assert facts["files"] == hashes
    server.log.clear()

    blob = store.path(tmp_path / "store", hashes["sub/b.txt"])
    blob.chmod(0o644)
    with open(blob, "r+b") as f:
        f.seek(7)
        f.write(b"X")
    drift = differences(facts, model.observe(World(), context) or {})
    assert [d.field for d in drift] == ["files.sub/b.txt"]

    apply(model, context, tmp_path, Action.UPDATE)
    assert [p for _, p, _, _ in server.log] == ["/sub/b.txt"]
    assert blob.read_bytes() == files["sub/b.txt"]

    assert apply(model, context, tmp_path, Action.DESTROY) is None
    assert list((tmp_path / "store/models").iterdir()) == []
    assert len(list((tmp_path / "store/blobs").rglob("*/*/*"))) == 3
    server.log.clear()
    apply(model, context, tmp_path)
    assert server.log == []


def test_a_wrong_hash_fails_and_leaves_nothing(tmp_path: Path, server: Server) -> None:
    put(server, "m.gguf", b"y" * 30_000)
    model = Model.model_validate({"url": f"{server.url}/m.gguf", "sha256": "0" * 64})
    context = Context(str(tmp_path), str(tmp_path / "store"))
    with pytest.raises(Problems, match="other bytes than declared"):
        apply(model, context, tmp_path)
    assert [f.name for f in (tmp_path / "store").rglob("*") if f.is_file()] == [".lab.json"]


def test_a_file_url_is_fetched_like_any_other(tmp_path: Path) -> None:
    source = tmp_path / "with space.txt"
    source.write_bytes(b"z" * 20_000)
    url = source.as_uri()
    good = Model.model_validate({"url": url, "sha256": sha256(b"z" * 20_000)})
    context = Context(str(tmp_path), str(tmp_path / "store"))
    assert list(apply(good, context, tmp_path)["files"]) == ["with space.txt"]
    bad = Model.model_validate({"url": url, "sha256": "1" * 64})
    with pytest.raises(Problems, match="other bytes"):
        apply(bad, Context(str(tmp_path), str(tmp_path / "other")), tmp_path)
    assert [f.name for f in (tmp_path / "other").rglob("*") if f.is_file()] == [".lab.json"]


def test_a_path_is_taken_into_the_store_or_linked_and_its_change_is_seen(tmp_path: Path) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    (source / "w.txt").write_bytes(b"1" * 9000)
    (source / ".hidden").write_bytes(b"")
    context = Context(str(tmp_path), str(tmp_path / "store"))
    copied = Model.model_validate({"path": "mine"})
    facts = apply(copied, context, tmp_path)
    assert facts["files"] == {"w.txt": sha256(b"1" * 9000)}
    before = copied.contents(context)
    (source / "w.txt").write_bytes(b"2" * 9000)
    assert copied.contents(context) != before
    assert apply(copied, context, tmp_path, Action.UPDATE)["files"] == {"w.txt": sha256(b"2" * 9000)}
    linked = Model.model_validate({"path": "mine", "place": "link", "family": "fam"})
    apply(linked, context, tmp_path, Action.UPDATE)
    link = tmp_path / "store/models/fam/m/original/w.txt"
    assert os.readlink(link) == str(source / "w.txt")
    assert not (tmp_path / "store/models/m").exists()


def test_a_store_whose_volume_is_away_is_unknown_never_absent(tmp_path: Path, server: Server) -> None:
    sha = put(server, "m.txt", b"w" * 5000)
    model = Model.model_validate({"url": f"{server.url}/m.txt", "sha256": sha, "store": "bulk"})
    disk = tmp_path / "volume"
    context = Context(str(tmp_path), str(tmp_path / "store"), lab={"id": "lab1", "stores": {"bulk": str(disk)}})
    disk.mkdir()
    apply(model, context, tmp_path)
    away = disk.rename(tmp_path / "unplugged")
    disk.mkdir()
    with pytest.raises(Unknown, match="not mounted"):
        model.observe(World(), context)
    disk.rmdir()
    away.rename(disk)
    assert model.observe(World(), context) == context.facts[context.address]


def test_moving_to_another_store_copies_there_and_asks_no_server(tmp_path: Path, server: Server) -> None:
    sha = put(server, "m.txt", b"w" * 5000)
    block = {"url": f"{server.url}/m.txt", "sha256": sha}
    context = Context(str(tmp_path), str(tmp_path / "s"), lab={"id": "l", "stores": {"bulk": str(tmp_path / "b")}})
    apply(Model.model_validate(block), context, tmp_path)
    server.log.clear()
    facts = apply(Model.model_validate({**block, "store": "bulk"}), context, tmp_path, Action.UPDATE)
    assert facts["view"] == str(tmp_path / "b/models/m/original")
    assert server.log == []
    assert not (tmp_path / "s/models/m").exists()


@pytest.mark.parametrize(
    ("block", "says"),
    [
        ({}, "exactly one source"),
        ({"path": "a", "hub": "b/c"}, "exactly one source"),
        ({"hub": "no-slash"}, "hub"),
        ({"url": "ftp://x/y"}, "url"),
        ({"url": "https://x/y", "sha256": "abc"}, "sha256"),
        ({"path": "x", "params": {"a": 1}}, "recipe"),
        ({"path": "x", "family": "../up"}, "family"),
    ],
)
def test_a_block_that_means_nothing_is_refused(block: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Model.model_validate(block)


def test_a_pickle_is_refused_unless_it_is_allowed(tmp_path: Path, server: Server) -> None:
    block = {"url": f"{server.url}/m.bin", "sha256": put(server, "m.bin", b"p" * 100)}
    context = Context(str(tmp_path), str(tmp_path / "store"))
    assert any("run code" in c[0] for c in Model.model_validate(block).check(context))
    with pytest.raises(Problems, match="run code"):
        apply(Model.model_validate(block), context, tmp_path)
    apply(Model.model_validate({**block, "allow_pickle": True}), context, tmp_path)
