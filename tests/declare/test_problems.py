"""Every mistake in conf/ is a problem with its file and line, all of them at once, in Lab's words."""

# ruff: noqa: E501

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from lab.core.problem import Problem

from .conftest import BOX, LAB, Make, right, wrong

GOOD = "path: /srv/a\ncontent: x\n"

ONE = [
    ("unknown kind folder", {"fil/a.yaml": GOOD}, "conf/fil", "`fil` is no kind — did you mean `file`?"),
    ("unknown key", {"file/a.yaml": "path: /a\nconten: x\ncontent: x\n"}, "conf/file/a.yaml:2:1",
     "unknown key `conten` in file.a — did you mean `content`?"),
    ("wrong type", {"file/a.yaml": "path: 5\ncontent: x\n"}, "conf/file/a.yaml:1:7",
     "`path` must be text, not the number 5"),
    ("wrong inner type", {"file/a.yaml": "path: /a\ncontent: x\nvalues:\n  a: 1\n  b: [1]\n"}, "conf/file/a.yaml:5:6",
     "`values.b` must be text or a whole number or a number or true or false, not a list"),
    ("not a list", {"file/a.yaml": GOOD + "tags: blue\n"}, "conf/file/a.yaml:3:7",
     "`tags` must be a list, not the text `blue`"),
    ("missing field", {"file/a.yaml": "content: x\n"}, "conf/file/a.yaml:1", "`path` is missing in file.a"),
    ("a rule of the kind", {"file/a.yaml": "path: /a\n"}, "conf/file/a.yaml:1",
     "file.a: give either `content` or `template`"),
    ("empty text", {"file/a.yaml": "path: ''\ncontent: x\n"}, "conf/file/a.yaml:1:7", "`path` must not be empty"),
    ("dangling reference", {"file/alpha.yaml": GOOD, "file/b.yaml": "path: /b\ncontent: x\nneeds: [file.alpah]\n"},
     "conf/file/b.yaml:3:9", "file.b refers to file.alpah, which is not declared — did you mean `alpha`?"),
    ("a reference that is none", {"file/b.yaml": GOOD + "after:\n  - nonsense\n"}, "conf/file/b.yaml:4:5",
     "file.b refers to nonsense, which is not declared"),
    ("disabled reference", {"file/a.yaml": GOOD + "enabled: false\n", "file/b.yaml": "path: /b\ncontent: x\nneeds: [file.a]"},
     "conf/file/b.yaml:3:9", "file.b refers to file.a, which is not enabled"),
    ("circle", {"file/a.yaml": GOOD + "needs: [file.b]\n", "file/b.yaml": "path: /b\ncontent: x\nafter: [file.a]\n"},
     "conf/file/a.yaml:3:9", "file.a needs itself: file.a → file.b → file.a"),
    ("itself", {"file/a.yaml": GOOD + "needs: [file.a]\n"}, "conf/file/a.yaml:3:9", "file.a needs itself: file.a → file.a"),
    ("unset variable", {"file/a.yaml": "path: ${oc.env:LAB_TEST_UNSET}/a\ncontent: x\n"}, "conf/file/a.yaml:1:7",
     "the environment variable LAB_TEST_UNSET is not set"),
    ("bad reference in text", {"file/a.yaml": "path: ${lab.stoer}/a\ncontent: x\n"}, "conf/file/a.yaml:1:7",
     "`${lab.stoer}`: there is no `stoer` in lab — did you mean `store`?"),
    ("bad grammar", {"file/a.yaml": "path: ${lab.store\ncontent: x\n"}, "conf/file/a.yaml:1:7",
     "`${lab.store` is no valid interpolation"),
    ("no such resolver", {"file/a.yaml": "path: /a\ncontent: ${now:%Y}\n"}, "conf/file/a.yaml:2:10",
     "`${now:%Y}` uses a resolver that is not there"),
    ("text refers to itself", {"file/a.yaml": "path: ${file.a.path}\ncontent: x\n"}, "conf/file/a.yaml:1:7",
     "`${file.a.path}` refers to itself: file.a.path → file.a.path"),
    ("to be filled in", {"file/a.yaml": "path: ???\ncontent: x\n"}, "conf/file/a.yaml:1:7",
     "`path` must be given a value: it is `???`"),
    ("tab", {"file/a.yaml": "path: /a\nvalues:\n\tx: 1\ncontent: x\n"}, "conf/file/a.yaml:3:1", "a tab is used as indentation"),
    ("not UTF-8", {"file/a.yaml": b"path: /a\ncontent: \xff\n"}, "conf/file/a.yaml:2", "the file is not UTF-8 text"),
    ("control character", {"file/a.yaml": b"path: /a\ncontent: a\x00b\n"}, "conf/file/a.yaml:2",
     "a control character stands in the file"),
    ("a list", {"file/a.yaml": "- path: /a\n"}, "conf/file/a.yaml:1", "the file is a list, not a mapping"),
    ("one value", {"file/a.yaml": "hello\n"}, "conf/file/a.yaml:1", "the file is one value, not a mapping"),
    ("empty file", {"file/a.yaml": ""}, "conf/file/a.yaml:1", "the file is empty, not a mapping"),
    ("only comments", {"file/a.yaml": "# nothing\n"}, "conf/file/a.yaml:1", "the file is empty, not a mapping"),
    ("bad name", {"file/a b.yaml": GOOD}, "conf/file/a b.yaml", "`a b` is no valid name for a resource"),
    ("case", {"file/Motd.yaml": GOOD, "file/motd.yaml": "path: /b\ncontent: x\n"}, "conf/file/motd.yaml",
     "file.motd and file.Motd differ only in case"),
    (".yml", {"file/a.yml": GOOD}, "conf/file/a.yml", "a.yml is not read"),
    ("beside lab.yaml", {"a.yaml": GOOD}, "conf/a.yaml", "a.yaml stands beside lab.yaml and is not read"),
    ("a folder in a kind", {"file/sub/a.yaml": GOOD}, "conf/file/sub", "a folder inside the folder of a kind is not read"),
    ("twice", {"file/a.yaml": "path: /a\npath: /b\ncontent: x\n"}, "conf/file/a.yaml:2:1", "the key `path` is given twice"),
    ("open quote", {"file/a.yaml": 'path: "/a\ncontent: x\n'}, "conf/file/a.yaml", "a quote or bracket is not closed"),
    ("colon in text", {"file/a.yaml": "path: /a\ncontent: a: b\n"}, "conf/file/a.yaml:2:11",
     "a `:` stands where none is allowed"),
    ("two documents", {"file/a.yaml": GOOD + "---\n" + GOOD}, "conf/file/a.yaml", "the file holds more than one document"),
    ("unknown alias", {"file/a.yaml": "path: *x\ncontent: x\n"}, "conf/file/a.yaml:1:7",
     "an alias names an anchor that is not there"),
    ("a tag", {"file/a.yaml": "path: !!python/object:os.system {}\ncontent: x\n"}, "conf/file/a.yaml:1:7",
     "the tag `!!python/object:os.system` is not for plain values"),
    ("too long a number", {"file/a.yaml": f"path: {'9' * 5000}\ncontent: x\n"}, "conf/file/a.yaml:1:7",
     "this number or truth value cannot be read"),
    ("a kind's own check", {"file/a.yaml": "path: /a\ntemplate: none.txt\n"}, "conf/file/a.yaml:2:11",
     "the template none.txt is not there"),
    ("the same path twice", {"file/a.yaml": "path: ~/x/../y\ncontent: x\n", "file/b.yaml": "path: ~/y\ncontent: x\n"},
     "conf/file/b.yaml:1:1", f"file.b and file.a both claim the path {Path.home()}/y"),
    ("unknown selection", {"profile/p.yaml": "# @package _global_\nresources:\n  file: [alhpa]\n", "file/alpha.yaml": GOOD,
     "lab.yaml": LAB.replace("host: box", "host: box\n  - profile: p")}, "conf/profile/p.yaml:3:9",
     "resources.file names `alhpa`, which is not declared — did you mean `alpha`?"),
    ("selection of no kind", {"lab.yaml": LAB + "resources: {fil: '*'}\n"}, "conf/lab.yaml:5:13",
     "resources: `fil` is no kind — did you mean `file`?"),
    ("unknown host", {"lab.yaml": LAB.replace("host: box", "host: bxo")}, "conf/lab.yaml:3:11",
     "there is no host `bxo` — did you mean `box`?"),
    ("unknown key of the head", {"lab.yaml": LAB + "ofline: true\n"}, "conf/lab.yaml:5:1",
     "unknown key `ofline` in the head — did you mean `offline`?"),
    ("unknown key of lab", {"lab.yaml": LAB.replace("store:", "stroe:")}, "conf/lab.yaml:4:32",
     "unknown key `stroe` in lab — did you mean `store`?"),
    ("a word that is none of those allowed", {"lab.yaml": LAB + "apply: {require: mergd}\n"}, "conf/lab.yaml:5:18",
     "`apply.require` must be `clean` or `merged` — did you mean `merged`?"),
    ("no lab.yaml block", {"lab.yaml": "defaults: [_self_, {host: box}]\n"}, "conf/lab.yaml:1", "`lab` is missing"),
    ("empty lab.yaml", {"lab.yaml": ""}, "conf/lab.yaml:1", "the file is empty"),
    ("a bad host", {"host/box.yaml": BOX + "memroy: 5\n"}, "conf/host/box.yaml:4:1",
     "unknown key `memroy` in host — did you mean `memory`?"),
    ("a profile without its header", {"profile/p.yaml": "resources: {}\n"}, "conf/profile/p.yaml:1",
     "the profile's values would land under `profile`"),
    ("a missing default", {"file/a.yaml": "defaults: [_bsae, _self_]\npath: /a\n"}, "conf/file/a.yaml:1",
     "the defaults list names `file/_bsae`, which is not there"),
]  # fmt: skip


@pytest.mark.parametrize(("files", "where", "summary"), [c[1:] for c in ONE], ids=[c[0] for c in ONE])
def test_one_mistake_is_one_problem(make: Make, files: dict[str, str], where: str, summary: str) -> None:
    """Each mistake is told once, where it stands, in Lab's words."""
    found = wrong(make(files))
    assert [p.summary for p in found] == [summary]
    assert found[0].where.startswith(where)
    assert not any(w in str(found[0]) for w in ("pydantic", "Traceback", "omegaconf", "full_key", "input_value"))


def test_all_mistakes_are_told_at_once(make: Make) -> None:
    """Mistakes of names, syntax, head, fields and references come together, in the order of files and lines."""
    files = {
        "lab.yaml": LAB + "ofline: true\n",
        "fiel/a.yaml": GOOD,
        "file/a.yaml": "path: 1\ncontnt: x\n",
        "file/b.yaml": "path: [\n",
        "file/c.yaml": "path: /c\ncontent: x\nneeds: [file.nope]\n",
        "file/d.yaml": "path: ${lab.nope}\ncontent: x\n",
        "file/e.yml": GOOD,
    }
    found = wrong(make(files))
    assert [p.where for p in found] == sorted(p.where for p in found)
    assert {p.file for p in found} == {"conf/fiel", *(f"conf/{n}" for n in files if n != "fiel/a.yaml")}
    assert len([p for p in found if p.file == "conf/file/a.yaml"]) >= 2


def test_a_broken_head_does_not_hide_broken_files(make: Make) -> None:
    """Where lab.yaml cannot be read, mistakes in resource files are still told."""
    found = wrong(make({"lab.yaml": "lab: [", "file/a.yaml": "path: 5\ncontent: x\n"}))
    assert [p.file for p in found] == ["conf/file/a.yaml", "conf/lab.yaml"]


def test_every_interpolation_is_told_and_each_once(make: Make) -> None:
    """Two in one file are two problems; one that several files look through is told where it stands, once."""
    found = wrong(
        make({
            "file/a.yaml": "path: ${lab.nope}\ncontent: ${oc.env:LAB_TEST_UNSET}\nvalues: {x: [1], y: '${open'}\n",
            "file/b.yaml": "path: ${file.a.path}/b\ncontent: x\n",
            "file/c.yaml": "path: ${vars.deep}/c\ncontent: x\n",
            "lab.yaml": LAB + "vars: {deep: '${nowhere}', other: '${lab.nix}'}\n",
        })
    )  # fmt: skip
    assert [p.where for p in found] == [
        "conf/file/a.yaml:1:7", "conf/file/a.yaml:2:10", "conf/file/a.yaml:3:21",
        "conf/lab.yaml:5:14", "conf/lab.yaml:5:35",
    ]  # fmt: skip


def test_what_needs_a_broken_resource_is_not_blamed(make: Make) -> None:
    """A reference to a resource whose file is wrong is no second problem."""
    found = wrong(
        make({"file/a.yaml": "path: 5\ncontent: x\n", "file/b.yaml": "path: /b\ncontent: x\nneeds: [file.a]\n"})
    )
    assert [p.address for p in found] == ["file.a"]


def test_links_out_of_conf_are_refused(make: Make, tmp_path: Path) -> None:
    """A link that leads out of conf/ is a problem, a folder too; a link inside is followed."""
    (tmp_path / "outside.yaml").write_text(GOOD)
    (tmp_path / "folder").mkdir()
    root = make({"file/a.yaml": GOOD})
    (root / "conf/file/out.yaml").symlink_to(tmp_path / "outside.yaml")
    (root / "conf/model").symlink_to(tmp_path / "folder")
    (root / "conf/file/nowhere.yaml").symlink_to("gone.yaml")
    found = {p.file: p.summary for p in wrong(root)}
    assert found.pop("conf/file/nowhere.yaml") == "the file cannot be read"
    assert found == dict.fromkeys(["conf/file/out.yaml", "conf/model"], "the link leads out of conf/")
    for name in ("file/out.yaml", "file/nowhere.yaml", "model"):
        (root / "conf" / name).unlink()
    (root / "conf/file/_b.yaml").write_text("path: /srv/b\ncontent: y\n")
    (root / "conf/file/b.yaml").symlink_to("_b.yaml")
    assert set(right(root).declarations) == {"file.a", "file.b"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_a_problem(make: Make) -> None:
    """A file without read permission is told by name."""
    root = make({"file/a.yaml": GOOD})
    (root / "conf/file/a.yaml").chmod(0)
    assert wrong(root)[0].where == "conf/file/a.yaml"


def test_a_file_that_is_a_pipe_is_a_problem(make: Make) -> None:
    """What is no plain file is not opened, so that nothing waits for ever."""
    root = make({"file/a.yaml": GOOD})
    os.mkfifo(root / "conf/file/pipe.yaml")
    assert [p.summary for p in wrong(root)] == ["pipe.yaml is no file"]


def test_no_conf_at_all(tmp_path: Path) -> None:
    """A folder without conf/ is one problem that says what to do."""
    (found,) = wrong(tmp_path)
    assert found.summary == "conf/ cannot be read"
    assert "lab init" in found.do


def test_a_secret_given_as_a_value_is_never_repeated(make: Make) -> None:
    """Problems of a field that takes a secret reference do not show what was written there."""
    from typing import ClassVar

    from pydantic import ValidationError

    from lab.core.kind import Declaration
    from lab.core.secret import Secret
    from lab.declare.words import faults

    class Vault(Declaration):
        """A test kind."""

        kind: ClassVar[str] = "vault"
        password: Secret
        others: Mapping[str, Secret | int] = {}

    for block in (
        {"password": "hunter2"},
        {"password": ["hunter2"]},
        {"password": "env:X", "others": {"a": "hunter2"}},
    ):
        with pytest.raises(ValidationError) as caught:
            Vault.model_validate(block)
        told = [f.summary for f in faults(caught.value, Vault, block, "vault.v")]
        assert told
        assert "hunter2" not in " ".join(told)
    assert told == ["`others.a`: expected a secret reference: env:NAME, file:PATH, keychain:ITEM or command:LINE"]


def test_anchor_bombs_are_refused_quickly(make: Make) -> None:
    """Aliases that multiply, circles of aliases and endless nesting are problems, found in bounded time."""
    import time

    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    merge = "m0: &m0 {x: 1}\n" + "".join(
        f"m{i}: &m{i}\n  <<: [{', '.join([f'*m{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    start = time.process_time()
    found = wrong(
        make({
            "file/bomb.yaml": bomb,
            "file/merge.yaml": merge,
            "file/circle.yaml": "path: &p [*p]\n",
            "file/deep.yaml": "path: " + "[" * 400_000,
            "file/dashes.yaml": "- " * 400_000,
            "file/blocks.yaml": "".join(f"{' ' * i}a:\n" for i in range(1500)),
        })
    )  # fmt: skip
    assert time.process_time() - start < 10
    assert {p.file for p in found} == {
        f"conf/file/{n}.yaml" for n in ("bomb", "merge", "circle", "deep", "dashes", "blocks")
    }
    assert all(isinstance(p, Problem) and p.line for p in found)
