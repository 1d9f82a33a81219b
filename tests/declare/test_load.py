"""Declarations, contexts and digests follow from conf/, its locks and the files behind it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field

from lab import kinds
from lab.core.address import Address
from lab.core.facts import Facts
from lab.core.host import Host
from lab.core.kind import Context, Declaration, RefTo

from .conftest import LAB, Make, right, wrong

GOOD = "path: /srv/a\ncontent: x\n"


class Rung(Declaration):
    """A test kind with a ladder, a lock and a reference."""

    kind: ClassVar[str] = "rung"

    of: Annotated[Address, RefTo("file")] | None = None
    uses: tuple[Annotated[Address, RefTo("rung", "file")], ...] = ()
    bits: int | tuple[int, ...] = 4
    folder: str = ""
    source_: str = Field("", alias="from")

    @classmethod
    def expand(cls, name: str, block: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]] | None:
        if not isinstance(block.get("bits"), list):
            return None
        return {f"{name}.b{bits}": {**block, "bits": bits} for bits in block["bits"]}

    def contents(self, context: Context) -> Facts:
        found = {"folder": context.content(context.path(self.folder))} if self.folder else {}
        return {**found, "lock": dict(context.lock) if context.lock else None}


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test kind, as another package would add it."""
    real = kinds.load
    monkeypatch.setattr(kinds, "plugged", lambda: {"rung": "x"})
    monkeypatch.setattr(kinds, "load", lambda name: Rung if name == "rung" else real(name))


def test_a_lab_becomes_declarations_in_order(make: Make) -> None:
    """Every file is a resource; what is needed comes first; after: orders without entering the digest."""
    files = {"file/a.yaml": GOOD + "needs: [file.b]\n", "file/b.yaml": "path: /b\ncontent: x\nafter: [file.c]\n"}
    root = make({**files, "file/c.yaml": "path: /c\ncontent: x\n", "file/off.yaml": GOOD + "enabled: false\n"})
    found = right(root)
    assert list(found.declarations) == ["file.a", "file.b", "file.c"]
    assert found.order == ["file.c", "file.b", "file.a"]
    assert found.needs[Address("file.b")] == ("file.c",)
    assert found.inputs[Address("file.b")]["requires"] == {}
    assert found.inputs[Address("file.a")]["requires"] == {"file.b": found.digests[Address("file.b")]}
    assert found.where[Address("file.a")] == ("conf/file/a.yaml", 1)
    assert found.where.at(Address("file.a"), "needs") == ("conf/file/a.yaml", 3, 8)
    assert found.host.name == "box"
    assert found.store == "/srv/store"


def test_digests_follow_what_matters_and_nothing_else(make: Make) -> None:
    """Content changes a digest and those of all that require it; descriptions, comments and key order change none."""
    files = {"file/a.yaml": GOOD, "file/b.yaml": "path: /b\ncontent: x\nneeds: [file.a]\n"}
    root = make(files)
    first = right(root).digests
    make({"file/a.yaml": "# why\ncontent: x\ntags: [t]\ndescription: d\npath: /srv/a\nmode: '0644'\n"})
    assert right(root).digests == first
    make({"file/a.yaml": "path: /srv/a\ncontent: y\n"})
    changed = right(root).digests
    assert all(changed[a] != first[a] for a in first)


def test_digests_are_the_same_in_every_version(make: Make) -> None:
    """Golden digests: a field added with a default, or another Python, changes no digest of an old lab."""
    b = "path: /b\ncontent: |\n  é\nvalues: {n: 1e-5, t: 'x', y: true}\nmode: '0600'\nneeds: [file.a]\ntags: [t]\n"
    assert right(make({"file/a.yaml": GOOD, "file/b.yaml": b})).digests == {
        "file.a": "f7b5e63061fa117b9638770c43c7b60e",
        "file.b": "f9248e3f839cdc3c2e7b4e7007049f97",
    }


def test_a_ladder_is_its_levels(make: Make, rung: None) -> None:
    """Each level is a resource of its own; a reference to the ladder means all; removing one changes no other."""
    root = make({"file/a.yaml": GOOD, "rung/r.yaml": "of: a\nbits: [2, 4, 8]\n", "rung/s.yaml": "uses: [r]\n"})
    found = right(root)
    levels = ("rung.r.b2", "rung.r.b4", "rung.r.b8")
    assert list(found.declarations) == ["file.a", *levels, "rung.s"]
    assert found.needs[Address("rung.s")] == levels
    assert set(found.inputs[Address("rung.s")]["requires"]) == set(levels)
    assert found.context("rung.s").levels("rung.r") == levels
    assert found.context("rung.s").levels("file.a") == ("file.a",)
    make({"rung/r.yaml": "of: a\nbits: [2, 8]\n"})
    fewer = right(root)
    assert {a: fewer.digests[a] for a in ("rung.r.b2", "rung.r.b8")} == {
        a: found.digests[a] for a in map(Address, ("rung.r.b2", "rung.r.b8"))
    }


def test_mistakes_in_a_ladder_are_told_once(make: Make, rung: None) -> None:
    """A wrong field of a ladder is one problem; a level that is also a file is a resource declared twice."""
    root = make({"rung/r.yaml": "bits: [2, 4]\nbitz: 3\n"})
    assert [(p.where, p.summary) for p in wrong(root)] == [
        ("conf/rung/r.yaml:2:1", "unknown key `bitz` in rung.r — did you mean `bits`?")
    ]
    make({"rung/r.yaml": "bits: [2, 4]\n", "rung/r.b4.yaml": "bits: 4\n"})
    assert [p.summary for p in wrong(root)] == ["rung.r.b4 is declared twice"]


def test_references_suggest_the_right_kind(make: Make, rung: None) -> None:
    """A bare name that another allowed kind has is suggested with its kind."""
    root = make({"file/a.yaml": GOOD, "rung/s.yaml": "uses: [a]\n"})
    assert wrong(root)[0].summary == "rung.s refers to rung.a, which is not declared — did you mean `file.a`?"


def test_a_context_knows_places_locks_and_contents(make: Make, rung: None, tmp_path: Path) -> None:
    """Paths become absolute, locks are read, trees are hashed by names, content and the executable bit."""
    root = make({"rung/r.yaml": "folder: code\n", "lock/rung/r.yaml": "resolved: [1, 2]\n"})
    (root / "code/sub").mkdir(parents=True)
    (root / "code/sub/a.py").write_text("1")
    context = right(root, recorded=lambda ref, head: {"seen": ref, "by": head["lab"]["name"]}).context("rung.r")
    assert context.path("a/./b") == f"{root}/a/b"
    assert context.path("~/x") == str(Path.home() / "x")
    assert context.path("/x//y/") == "/x/y"
    assert context.lock == {"resolved": [1, 2]}
    assert context.recorded("rung.r") == {"seen": "rung.r", "by": "t"}
    assert context.text("code/sub/a.py") == "1"
    assert context.text("code/none") is None
    assert context.content("code/none") == ""
    before = right(root).digests
    (root / "code/__pycache__").mkdir()
    (root / "code/__pycache__/a.pyc").write_text("made")
    assert right(root).digests == before
    (root / "code/sub/a.py").chmod(0o755)
    executable = right(root).digests
    assert executable != before
    (root / "conf/lock/rung/r.yaml").write_text("resolved: [3]\n")
    assert right(root).digests != executable


def test_what_ships_with_lab_is_found_from_any_lab(make: Make) -> None:
    """A recipe that the repository does not have is read from those that came with Lab."""
    context = right(make({"file/a.yaml": GOOD})).context("file.a")
    assert "LAB_NAME" in (context.text("recipes/lab/starter/README.md") or "")
    assert len(context.content("recipes/lab/starter")) == 64
    assert context.text("recipes/../pyproject.toml") is None


def test_the_machine_is_read_only_where_the_host_is_auto(make: Make) -> None:
    """`host: auto` asks the machine, and values beside it win; a host without a chip cannot be this machine."""
    auto = LAB.replace("host: box", "host: auto")
    machine = Host(name="here", memory=5, cores=2)
    root = make({"lab.yaml": auto})
    assert right(root, "++host.memory=7", machine=lambda: machine).host == machine.model_copy(update={"memory": 7})
    assert right(root, "host=box", machine=lambda: 1 / 0).host.name == "box"  # type: ignore[arg-type,return-value]


def test_profiles_select(make: Make) -> None:
    """Names, globs, lists and `!` choose files; a kind left out has none; `"*"` speaks for the rest."""
    files = {f"file/{n}.yaml": f"path: /{n}\ncontent: x\n" for n in ("one", "two", "three")}
    lab = LAB.replace("host: box", "host: box\n  - profile: p")

    def chosen(resources: str) -> list[str]:
        root = make({**files, "lab.yaml": lab, "profile/p.yaml": f"# @package _global_\n{resources}\n"})
        found = right(root)
        assert found.profile == "p"
        return [a.name for a in found.declarations]

    assert chosen("") == ["one", "three", "two"]
    assert chosen("resources: {file: one}") == ["one"]
    assert chosen("resources: {file: 't*'}") == ["three", "two"]
    assert chosen("resources: {file: [one, 't*', '!two']}") == ["one", "three"]
    assert chosen("resources: {file: ['!two']}") == ["one", "three"]
    assert chosen("resources: {file: []}") == []
    assert chosen("resources: {}") == []
    assert chosen("resources: {'*': '*'}") == ["one", "three", "two"]
    assert chosen("resources: {file: '*'}\nfile: {two: {enabled: false}}") == ["one", "three"]
    assert chosen("file: {four: {path: /four, content: inline}}") == ["four", "one", "three", "two"]


def test_overrides_change_what_is_declared(make: Make) -> None:
    """A field may be set though the file leaves it out; unknown keys, names and groups are told with the nearest."""
    root = make({"file/alpha.yaml": GOOD})
    assert right(root, "file.alpha.mode='0600'").declarations[Address("file.alpha")].mode == "0600"  # type: ignore[attr-defined]
    assert list(right(root, "~file.alpha").declarations) == []
    assert list(right(root, "+file.beta={path:/b,content:y}").declarations) == ["file.alpha", "file.beta"]
    assert right(root, "offline=true").head["offline"] is True
    assert right(root, "lab.owner=me").head["lab"]["owner"] == "me"
    for text, summary in {
        "file.alpha.moed='0600'": "unknown key `moed` in file.alpha — did you mean `mode`?",
        "file.alhpa.mode='0600'": "file.alhpa is not declared — did you mean `alpha`?",
        "flie.alpha.mode=1": "`flie.alpha.mode=1`: there is no `flie` — did you mean `file`?",
        "lab.stoer=/x": "`lab.stoer=/x`: unknown key `stoer` in lab — did you mean `store`?",
        "host=bxo": "there is no host `bxo` — did you mean `box`?",
        "file.alpha.mode=a,b": "`file.alpha.mode=a,b` names several values",
        "file.alpha.mode=[": "`file.alpha.mode=[` is no valid override",
        "file=alpha": "`file` is a kind, not a group",
        "+file.alpha.path=/x": "file.alpha.path is already there",
        "~file.alpha.tags": "there is no `tags` in file.alpha",
        "~file.alpha.path=/x": "file.alpha.path is not '/x'",
    }.items():
        assert [p.summary for p in wrong(root, text)] == [summary]
        assert wrong(root, text)[0].file == "command line"


def test_a_warm_load_imports_neither_hydra_nor_omegaconf(make: Make, tmp_path: Path) -> None:
    """What was composed is kept by content; a change of the head, of an override or of a variable composes anew."""
    root = make({"file/a.yaml": "path: ${lab.store}/a\ncontent: ${oc.env:LAB_TEST_WORD,none}\n"})
    code = (
        "import sys, pathlib\nfrom lab.declare import load\n"
        "d = load(pathlib.Path(sys.argv[1]), sys.argv[3:], cache=pathlib.Path(sys.argv[2]))\n"
        "print(d.declarations['file.a'].content, d.declarations['file.a'].path, 'hydra' in sys.modules,"
        " 'omegaconf' in sys.modules, 'git' in sys.modules)"
    )

    def run(*overrides: str, **environ: str) -> str:
        args = [sys.executable, "-c", code, str(root), str(tmp_path / "cache"), *overrides]
        env = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin", **environ}
        return subprocess.run(args, capture_output=True, text=True, check=True, env=env).stdout.strip()

    assert run() == "none /srv/store/a True True False"
    assert run() == "none /srv/store/a False False False"
    assert run(LAB_TEST_WORD="set") == "set /srv/store/a False False False"
    assert run("lab.store=/other") == "none /other/a True True False"
    assert run("lab.store=/other") == "none /other/a False False False"
    (root / "conf/lab.yaml").write_text(LAB.replace("/srv/store", "/third"))
    assert run() == "none /third/a True True False"


def test_a_change_is_seen_however_quickly_it_follows(make: Make, tmp_path: Path) -> None:
    """A file rewritten at once, with the same size, is read again; a damaged cache is ignored."""
    root = make({"file/a.yaml": GOOD})
    cache = tmp_path / "cache"
    for i in range(20):
        make({"file/a.yaml": f"path: /srv/a\ncontent: '{i:02}'\n"})
        assert right(root, cache=cache).declarations[Address("file.a")].content == f"{i:02}"  # type: ignore[attr-defined]
    for kept in (cache / "declare").iterdir():
        kept.write_bytes(b'{"format": 1, "val')
    assert right(root, cache=cache).declarations
    for kept in (cache / "declare").iterdir():
        kept.write_bytes(b'{"format": "of another version", "value": {"key": 1}}')
    assert right(root, cache=cache).declarations
    cache_file = tmp_path / "file"
    cache_file.write_text("no folder")
    assert right(root, cache=cache_file).declarations


def test_an_exported_commit_is_read_as_if_it_lived_in_the_lab(make: Make, tmp_path: Path) -> None:
    """Paths are those of the lab; templates and locks are read from the export."""
    root = make({"file/a.yaml": "path: out.txt\ntemplate: t.txt\n"})
    (root / "t.txt").write_text("now")
    old = make({"file/a.yaml": "path: out.txt\ntemplate: t.txt\n"}, root=tmp_path / "old")
    (old / "t.txt").write_text("then")
    found = right(old, lives=root)
    context = found.context("file.a")
    assert context.path("out.txt") == f"{root}/out.txt"
    assert context.text(context.path("t.txt")) == "then"
    assert found.digests != right(root).digests
