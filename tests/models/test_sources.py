"""A model is obtained alike from a hub, a mirror, ModelScope, Ollama's registry, a release and git. (S0-US-009-5)"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from lab.adapters import hub
from lab.core.change import Action
from lab.core.problem import Problems
from lab.kinds.model import Model
from tests.models import make, offers
from tests.models.doubles import Context, World
from tests.models.lifecycle import apply, lock
from tests.models.servers import Server, sha256


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(str(tmp_path), str(tmp_path / "store"))


def hashes(folder: Path) -> dict[str, str]:
    files = {f.relative_to(folder).as_posix(): f for f in sorted(folder.rglob("*")) if f.is_file()}
    return {n: sha256(f.read_bytes()) for n, f in files.items()}


def test_a_hub_model_is_locked_without_its_weights_and_fetched_as_locked(
    server: Server, context: Context, tmp_path: Path
) -> None:
    params = make.safetensors(server.root / "org/tiny", shards=2)
    (server.root / "org/tiny/pytorch_model.bin").write_bytes(b"pickle")
    (server.root / "org/tiny/.gitattributes").write_bytes(b"")
    server.page = 3
    model = Model.model_validate({"hub": "org/tiny", "endpoint": server.url})
    assert model.contents(context) == {"files": None}
    found = lock(model, context, tmp_path)
    assert found["commit"] == server.commit("org/tiny")
    assert found["license"] == "apache-2.0"
    assert found["model"]["params"] == params
    assert found["model"]["context"] == 512
    assert found["model"]["config"]["hidden_size"] == 64
    wanted = {
        k: v for k, v in hashes(server.root / "org/tiny").items() if k not in ("pytorch_model.bin", ".gitattributes")
    }
    assert {n: f["sha256"] for n, f in found["files"].items()} == wanted
    assert model.contents(context) == {"files": wanted}
    weights = [p for _, p, r, c in server.log if p.endswith(".safetensors") and c == 200]
    assert weights == []

    (server.root / "org/tiny/config.json").write_text("{}")  # main moves on
    with pytest.raises(Problems, match="not there"):
        apply(model, context, tmp_path)  # and this hub forgot the old commit
    make.safetensors(server.root / "org/tiny", shards=2)
    facts = apply(model, context, tmp_path)
    assert facts["files"] == wanted
    assert facts["model"]["format"] == "safetensors"
    assert facts["source"]["revision"] == found["commit"]
    other = model.with_(hub="org/other")
    assert other.contents(context) == {"files": None}, "a lock of another source is not used"


def test_an_unlocked_hub_model_is_fetched_and_its_files_are_known_afterwards(
    server: Server, context: Context, tmp_path: Path
) -> None:
    make.safetensors(server.root / "org/tiny")
    model = Model.model_validate({"hub": "org/tiny", "endpoint": server.url, "exclude": ["README.md"]})
    server.faults["config.json"] = ["flip"]
    facts = apply(model, context, tmp_path)
    assert facts["files"] == {k: v for k, v in hashes(server.root / "org/tiny").items() if k != "README.md"}
    again = model.observe(World(), context)
    assert again == facts


def test_a_gated_model_says_where_to_accept_its_licence(server: Server, context: Context, tmp_path: Path) -> None:
    make.safetensors(server.root / "org/gated")
    server.gated.add("org/gated")
    server.token = "s3cret-token"
    model = Model.model_validate({"hub": "org/gated", "endpoint": server.url})
    with pytest.raises(Problems) as found:
        apply(model, context, tmp_path)
    (problem,) = found.value.problems
    assert f"{server.url}/org/gated" in problem.do
    assert "token: env:HF_TOKEN" in problem.do
    allowed = model.with_(token="env:HF_TOKEN")
    facts = apply(allowed, context, tmp_path, secrets={"env:HF_TOKEN": "s3cret-token"})
    assert len(facts["files"]) == 5
    assert b"s3cret-token" not in b"".join(f.read_bytes() for f in tmp_path.rglob("*.json"))


@pytest.mark.parametrize(
    ("block", "says"),
    [({"hub": "org/none"}, "not there"), ({"hub": "org/tiny", "revision": "v9"}, "not there")],
)
def test_what_a_hub_does_not_have_is_a_problem(
    server: Server, context: Context, tmp_path: Path, block: dict[str, str], says: str
) -> None:
    make.safetensors(server.root / "org/tiny")
    with pytest.raises(Problems, match=says):
        apply(Model.model_validate({**block, "endpoint": server.url}), context, tmp_path)


@pytest.mark.parametrize(
    ("path", "says"),
    [("loop", "redirects in a circle"), ("gone", "is not there"), ("w.gguf", "is not open to everyone")],
)
def test_a_final_no_is_told_as_it_is(server: Server, context: Context, tmp_path: Path, path: str, says: str) -> None:
    (server.root / "w.gguf").write_bytes(b"x" * 100)
    server.faults["w.gguf"] = ["error:403"] * 9
    server.redirect["/loop"] = f"{server.url}/loop"
    with pytest.raises(Problems) as found:
        apply(Model.model_validate({"url": f"{server.url}/{path}", "sha256": "a" * 64}), context, tmp_path)
    assert says in str(found.value.problems[0])
    assert not list(tmp_path.rglob("blobs/*/*/*"))


def test_only_pickles_is_a_problem_not_an_empty_model(server: Server, context: Context, tmp_path: Path) -> None:
    (server.root / "org/old").mkdir(parents=True)
    (server.root / "org/old/pytorch_model.bin").write_bytes(b"p")
    with pytest.raises(Problems, match="run code"):
        apply(Model.model_validate({"hub": "org/old", "endpoint": server.url}), context, tmp_path)


def test_modelscope_speaks_its_own_protocol(server: Server, context: Context, tmp_path: Path) -> None:
    folder = tmp_path / "ms"
    make.safetensors(folder)
    model = Model.model_validate(offers.modelscope(server, folder)[0])
    lock(model, context, tmp_path)
    assert apply(model, context, tmp_path)["files"] == hashes(folder)


def test_an_ollama_model_comes_from_the_registry_or_from_ollamas_own_folder(
    server: Server, context: Context, tmp_path: Path, home: Path
) -> None:
    file = tmp_path / "tiny.gguf"
    params = make.gguf(file)
    block, _ = offers.ollama(server, {"model": file.read_bytes(), "template": b"{{ .Prompt }}"})
    manifest = server.routes["/v2/library/tiny/manifests/q8"]
    model = Model.model_validate(block)
    found = lock(model, context, tmp_path)
    assert found["model"]["params"] == params
    assert apply(model, context, tmp_path)["files"]["model.gguf"] == sha256(file.read_bytes())

    blobs = home / ".ollama/models/blobs"
    blobs.mkdir(parents=True)
    for data in (file.read_bytes(), b"{{ .Prompt }}"):
        (blobs / f"sha256-{sha256(data)}").write_bytes(data)
    place = home / ".ollama/models/manifests/registry.ollama.ai/library/tiny/q8"
    place.parent.mkdir(parents=True)
    place.write_bytes(manifest)
    before = hashes(home)
    here = Context(str(tmp_path), str(tmp_path / "second"))
    facts = apply(Model.model_validate({"ollama": "tiny:q8"}), here, tmp_path, offline=True)
    link = tmp_path / "second/models/m/original/model.gguf"
    assert os.readlink(link) == str(blobs / f"sha256-{facts['files']['model.gguf']}")
    assert not list((tmp_path / "second").rglob("sha256/*/*"))
    apply(Model.model_validate({"ollama": "tiny:q8"}), here, tmp_path, Action.DESTROY)
    assert hashes(home) == before


def test_a_release_gives_its_assets_checked_by_digest_or_by_its_checksum_file(
    server: Server, context: Context, tmp_path: Path
) -> None:
    make.gguf(server.root / "tiny.gguf")
    (server.root / "sub.txt").write_bytes(b"notes")
    sums = f"{sha256(b'notes')}  sub.txt\n".encode()
    (server.root / "SHA256SUMS.txt").write_bytes(sums)

    def asset(name: str, **more: str) -> dict[str, object]:
        size = (server.root / name).stat().st_size
        return {"name": name, "size": size, "browser_download_url": f"{server.url}/{name}", **more}

    digest = sha256((server.root / "tiny.gguf").read_bytes())
    assets = [asset("tiny.gguf", digest=f"sha256:{digest}"), asset("sub.txt"), asset("SHA256SUMS.txt")]
    server.routes["/repos/me/models/releases/latest"] = {"tag_name": "v1", "assets": assets}
    server.routes["/repos/me/models/releases/tags/v1"] = {"tag_name": "v1", "assets": assets}
    block = {"release": "me/models", "endpoint": server.url, "include": ["*.gguf", "sub.txt"]}
    model = Model.model_validate(block)
    assert lock(model, context, tmp_path)["tag"] == "v1"
    server.faults["sub.txt"] = ["flip"]
    facts = apply(model, context, tmp_path)
    assert facts["files"] == {"sub.txt": sha256(b"notes"), "tiny.gguf": digest}


def test_a_git_repository_gives_one_commit_and_its_lfs_files(server: Server, context: Context, tmp_path: Path) -> None:
    work = tmp_path / "work"
    make.safetensors(work)
    weights = (work / "model.safetensors").read_bytes()
    block, commit = offers.repository(work)
    model = Model.model_validate({**block, "exclude": ["README.md"]})
    assert lock(model, context, tmp_path)["commit"] == commit
    facts = apply(model, context, tmp_path, offline=True)
    assert facts["files"]["model.safetensors"] == sha256(weights)
    assert "README.md" not in facts["files"]
    with pytest.raises(Problems, match="git cannot fetch"):
        apply(Model.model_validate({"git": f"file://{work}", "revision": "nope"}), context, tmp_path)


def cached(home: Path, folder: Path, repository: str, revision: str) -> Path:
    """A Hugging Face cache as huggingface_hub itself writes it: blobs by etag, snapshots of links, refs."""
    own = home / ".cache/huggingface/hub" / f"models--{repository.replace('/', '--')}"
    for file in sorted(folder.rglob("*")):
        data = file.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        blob = own / "blobs" / (sha256(data) if len(data) > 10_000 else git)
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        link = own / "snapshots" / revision / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    (own / "refs").mkdir()
    (own / "refs/main").write_text(revision)
    return own


def test_what_huggingface_holds_is_adopted_where_it_lies_and_its_own_library_still_finds_it(
    context: Context, tmp_path: Path, home: Path
) -> None:
    from huggingface_hub import snapshot_download

    make.safetensors(tmp_path / "src")
    own = cached(home, tmp_path / "src", "org/tiny", "a" * 40)
    before = {f: (f.lstat().st_ino, f.lstat().st_mtime_ns) for f in own.rglob("*")}
    model = Model.model_validate({"hub": "org/tiny"})
    found = lock(model, context, tmp_path, offline=True)
    assert found["commit"] == "a" * 40
    facts = apply(model, context, tmp_path, offline=True)
    assert facts["files"] == hashes(tmp_path / "src")
    held = list((tmp_path / "store").rglob("sha256/*/*"))
    assert held == []
    assert apply(model, context, tmp_path, Action.DESTROY) is None
    assert {f: (f.lstat().st_ino, f.lstat().st_mtime_ns) for f in own.rglob("*")} == before
    cache = home / ".cache/huggingface/hub"
    place = snapshot_download("org/tiny", cache_dir=cache, local_files_only=True)
    assert hashes(Path(place)) == hashes(tmp_path / "src")


def test_a_locked_model_takes_from_the_cache_what_is_right_and_fetches_the_rest(
    server: Server, context: Context, tmp_path: Path, home: Path
) -> None:
    make.safetensors(server.root / "org/tiny")
    model = Model.model_validate({"hub": "org/tiny", "endpoint": server.url})
    lock(model, context, tmp_path)
    own = cached(home, server.root / "org/tiny", "org/tiny", "b" * 40)
    big = own / "blobs" / sha256((server.root / "org/tiny/model.safetensors").read_bytes())
    spoiled = bytearray(big.read_bytes())
    spoiled[-1] ^= 1
    big.write_bytes(spoiled)
    fresh = Context(str(tmp_path), str(tmp_path / "other"), lock=context.lock)
    server.log.clear()
    facts = apply(model, fresh, tmp_path)
    assert facts["files"] == hashes(server.root / "org/tiny")
    assert [p.rpartition("/")[2] for _, p, _, _ in server.log] == ["model.safetensors"]
    assert bytes(spoiled) == big.read_bytes()


def test_globs_choose_files_in_any_folder() -> None:
    names = ["a.safetensors", "sub/b.safetensors", "sub/c.bin", "README.md"]
    assert hub.choose(names, {"include": ["*.safetensors"]}) == {"a.safetensors", "sub/b.safetensors"}
    assert hub.choose(names, {"include": ["sub/*"]}) == {"sub/b.safetensors", "sub/c.bin"}
    assert hub.choose(names, {"exclude": ["README.md"]}) == {"a.safetensors", "sub/b.safetensors"}


def test_an_unlocked_model_is_repaired_as_it_was_not_as_its_branch_is_by_now(
    server: Server, context: Context, tmp_path: Path
) -> None:
    make.safetensors(server.root / "org/tiny")
    model = Model.model_validate({"hub": "org/tiny", "endpoint": server.url})
    facts = apply(model, context, tmp_path)
    old = (server.root / "org/tiny/config.json").read_bytes()
    blob = tmp_path / "store/blobs/sha256" / sha256(old)[:2] / sha256(old)
    blob.chmod(0o644)
    blob.write_bytes(b"spoiled")
    server.log.clear()
    assert apply(model, context, tmp_path, Action.UPDATE) == facts
    assert [p.rpartition("/")[2] for _, p, _, _ in server.log] == ["config.json"]
    blob.chmod(0o644)
    blob.write_bytes(b"spoiled")
    (server.root / "org/tiny/config.json").write_text("{}")
    with pytest.raises(Problems, match="other bytes than declared"):
        apply(model, context, tmp_path, Action.UPDATE)
