"""The deeds that are interrupted: making, changing and removing a small lab."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.faults.campaign import Deed


def files(source: Path | None = None) -> dict[str, str]:
    """Light files of every sort, in a chain and beside it, and a model and a dataset where there is a source."""
    found = {
        "file/plain": "path: ROOT/out/plain\ncontent: plain\n",
        "file/deep": "path: ROOT/out/a/b/c/deep\ncontent: deep\nmode: '0600'\n",
        "file/bytes": "path: ROOT/out/bytes\ncontent: AAECAwQ=\nencoding: base64\n",
        "file/after": "path: ROOT/out/after\ncontent: after\nneeds: [file.plain]\n",
    }
    if source:
        found["model/tiny"] = f"path: {source}\nplace: copy\n"
        found["dataset/rows"] = f"path: {source.parent}/rows\n"
    return found


def changed(source: Path | None = None) -> dict[str, str]:
    """The same with one file changed, one moved to another path, one gone, one renamed and one new."""
    found = files(source)
    found["file/plain"] = "path: ROOT/out/plain\ncontent: changed\n"
    found["file/deep"] = "path: ROOT/out/elsewhere/deep\ncontent: deep\nmode: '0600'\n"
    del found["file/bytes"]
    found["file/new"] = "path: ROOT/out/new\ncontent: new\n"
    return found


def deeds(source: Path | None = None) -> dict[str, Deed]:
    """What is interrupted, by name."""
    return {
        "create": Deed("create", {}, files(source)),
        "change": Deed("change", files(source), changed(source)),
        "destroy": Deed("destroy", files(source), files(source), ("destroy", "--all", "--yes", "--json-events")),
    }


def downloaded(urls: Mapping[str, str]) -> Deed:
    """Models and a dataset that come over HTTP: url → sha256, or nothing where that is to be learned."""
    files = {
        f"model/net{n}": f"url: {url}\n" + f"sha256: {known}\n" * bool(known)
        for n, (url, known) in enumerate(urls.items())
    }
    first, known = next(iter(urls.items()))
    files["dataset/net"] = f"url: {first}\nsha256: {known}\n"
    return Deed("download", {}, files)


def many(count: int) -> Deed:
    """So many files in chains and fans; a third of them change, a tenth go, a tenth are new."""

    def made(numbers: range, text: str) -> dict[str, str]:
        return {
            f"file/f{n:04}": f"path: ROOT/out/{n % 17}/{n}\ncontent: '{text if n % 3 == 0 else 'as ever'} {n}'\n"
            + f"needs: [file.f{n - (1 if n % 50 else 50):04}]\n" * (60 < n < count)
            for n in numbers
        }

    tenth = count // 10
    return Deed(
        "many", made(range(count), "old"), made(range(count - tenth), "new") | made(range(count, count + tenth), "")
    )


def bench(top: Path) -> dict[str, Deed]:
    """The heavier kinds, with what they need: a model of random weights, a local wheel and its lock."""
    from tests.engines import make
    from tests.envs.test_lock import wheel
    from tests.labs import TestLab

    top.mkdir(parents=True, exist_ok=True)
    make.model(top / "tiny")
    (top / "wheels").mkdir()
    wheel(top / "wheels", "pinned_one", "1.0", "")
    env = {"UV_FIND_LINKS": f"{top}/wheels", "UV_NO_INDEX": "1", "UV_CACHE_DIR": f"{top}/uv"}
    env |= {"LAB_FAULTS_WORD": "correct horse", "RESTIC_CACHE_DIR": f"{top}/restic"}
    found = heavy(top, "", env)
    lab = TestLab.make(top / "lab", {"env/one": found["env"].after["env/one"]})
    locked = lab.run("lock", env=env)
    assert locked.code == 0, locked
    return heavy(top, (lab.root / "conf/lock/env/one.yaml").read_text(), env)


def heavy(bench: Path, lock: str, env: Mapping[str, str]) -> dict[str, Deed]:
    """A real resource of each heavier kind, made where what it needs is there: kind → deed.

    `bench` holds a model of random weights; `lock` is the lock of an env of one local wheel.
    """
    model = {"model/tiny": f"path: {bench}/tiny\nplace: copy\n"}
    used = {
        "lock/env/one": lock,
        "env/one": "python: host\nlock: pins\npip: [pinned-one]\ncommands: [\"python -c 'import pinned_one'\"]\n",
    }
    run = {
        "experiment/words": "command: 'echo loss={x}; echo words > {outputs.words}'\nparams: {x: 0.5}\n"
        "metrics: [loss]\npatterns: {loss: 'loss=(.+)'}\noutputs: {words: words.txt}\n"
    }
    space = "experiment: words\nspace: {x: {low: 0.0, high: 1.0}}\nobjective: loss\nsampler: random\n"
    made: dict[str, tuple[dict[str, str], dict[str, str]]] = {
        "quantization": (model, {"quantization/q": "of: tiny\nformat: gguf\ntype: Q4_0\n"}),
        "env": ({}, used),
        "framework": (used, {"framework/one": "env: one\nsmoke: \"python -c 'import pinned_one'\"\n"}),
        "experiment": ({}, run),
        "sweep": (run, {"sweep/two": f"{space}trials: 2\n"}),
        "backup": ({}, {"backup/b": "repo: ROOT/repo\npassword: env:LAB_FAULTS_WORD\npaths: [ROOT/conf]\n"}),
        "maintenance": ({}, {"maintenance/host": "tasks: {review docs: quarterly}\n"}),
    }
    return {kind: Deed(kind, needs, {**needs, **new}, env=env) for kind, (needs, new) in made.items()}
