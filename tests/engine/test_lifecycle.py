"""A lab goes through its life: create, none, change, drift, rename, destroy, import, rollback; the ledger stays true.

Proves DC-2, DC-3, DC-4, DC-9, S3-VI.4-1.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.labs import TestLab

FILES = {
    "file/a": "path: ROOT/out/a.txt\ncontent: hello\n",
    "file/b": "path: ROOT/out/b.txt\ncontent: world\nneeds: [file.a]\n",
}


def tree(root: Path) -> dict[str, bytes]:
    """Every file below a folder by name."""
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_apply_then_no_changes_then_destroy_leaves_nothing(tmp_path: Path) -> None:
    """What apply made, plan finds as declared; destroy removes exactly that."""
    lab = TestLab.make(tmp_path, FILES)
    assert lab("plan", "--detailed-exitcode").code == 2
    assert lab("apply", "--yes").code == 0
    assert tree(tmp_path / "out") == {"a.txt": b"hello", "b.txt": b"world"}
    assert lab("plan", "--detailed-exitcode").out == "No changes. 2 resources are as declared (generation 1).\n"
    assert lab("plan", "--detailed-exitcode").code == 0
    assert lab("destroy", "--all", "--yes").code == 0
    assert tree(tmp_path / "out") == {}
    assert lab("state", "list").out.startswith("Nothing is recorded")


def test_plan_changes_nothing_on_disk(tmp_path: Path) -> None:
    """The whole tree but the cache is the same before and after a plan."""
    lab = TestLab.make(tmp_path, FILES)
    lab("apply", "--yes")
    lab.write("out/a.txt", "edited")

    def seen() -> dict[str, bytes]:
        return {k: v for k, v in tree(tmp_path).items() if not k.startswith("state/cache") and "ledger" not in k}

    before = seen()
    assert lab("plan").code == 0
    assert lab("plan", "--json").code == 0
    assert seen() == before


def test_a_plan_is_the_same_to_the_byte(tmp_path: Path) -> None:
    """Same conf, ledger and world give the same bytes, with a cache and without."""
    lab = TestLab.make(tmp_path, FILES)
    first = lab("plan", "--json").out
    assert lab("plan", "--json").out == first
    import shutil

    shutil.rmtree(tmp_path / "state" / "cache", ignore_errors=True)
    assert lab("plan", "--json").out == first


def test_drift_is_one_update_and_apply_repairs_only_that(tmp_path: Path) -> None:
    """A hand edit is named by plan, drift and verify; apply repairs it and touches nothing else."""
    lab = TestLab.make(tmp_path, FILES)
    lab("apply", "--yes")
    before = (tmp_path / "out/b.txt").stat()
    lab.write("out/a.txt", "hacked")
    plan = json.loads(lab("plan", "--json").out)
    assert plan["summary"]["update"] == 1
    assert plan["changes"][0]["drift"][0]["field"] == "content"
    assert lab("drift").code == 1
    assert lab("verify").code == 1
    said = lab("apply", "--yes", "--json-events")
    assert said.code == 0
    assert (tmp_path / "out/a.txt").read_text() == "hello"
    # The plan's word stays the word: in its JSON beside the action, while it is done, and afterwards.
    assert (plan["changes"][0]["action"], plan["changes"][0]["word"]) == ("update", "repair")
    events = [json.loads(line) for line in said.err.splitlines()]
    assert {e["action"] for e in events if e.get("address") == "file.a"} == {"repair"}
    (one,) = json.loads(lab("history", "2", "--json").out)["changes"]
    assert one["action"] == "repair"
    assert "1 repair" in lab("history").out
    assert "repair   file.a" in lab("history", "2").out
    lab.write("out/a.txt", "hacked again")
    assert "repaired" in lab("apply", "--yes").err
    assert (tmp_path / "out/b.txt").stat().st_mtime_ns == before.st_mtime_ns
    assert lab("verify").code == 0


def test_verify_sees_a_flipped_byte_behind_an_unchanged_stat(tmp_path: Path) -> None:
    """Verify trusts no stat: bytes changed with size and mtime put back are found."""
    import os

    lab = TestLab.make(tmp_path, FILES)
    lab("apply", "--yes")
    lab("plan")
    path = tmp_path / "out/a.txt"
    stat = path.stat()
    path.write_text("hellO")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert lab("verify").code == 1


def test_a_removed_declaration_is_one_destroy(tmp_path: Path) -> None:
    """Deleting a YAML file plans one destroy, after what needed it was freed of it."""
    lab = TestLab.make(tmp_path, FILES)
    lab("apply", "--yes")
    (tmp_path / "conf/file/b.yaml").unlink()
    plan = json.loads(lab("plan", "--json").out)
    assert [(c["address"], c["action"]) for c in plan["changes"] if c["action"] != "none"] == [("file.b", "destroy")]
    assert lab("apply", "--yes").code == 0
    assert tree(tmp_path / "out") == {"a.txt": b"hello"}


def test_a_renamed_declaration_moves(tmp_path: Path) -> None:
    """Renaming a YAML file rebuilds nothing; nor does `moved:` when the place changes names."""
    lab = TestLab.make(tmp_path, FILES)
    lab("apply", "--yes")
    inode = (tmp_path / "out/a.txt").stat().st_ino
    (tmp_path / "conf/file/a.yaml").rename(tmp_path / "conf/file/c.yaml")
    lab.write("conf/file/b.yaml", "path: ROOT/out/b.txt\ncontent: world\nneeds: [file.c]\n")
    assert "was file.a" in lab("plan").out
    assert lab("apply", "--yes").code == 0
    assert (tmp_path / "out/a.txt").stat().st_ino == inode
    assert lab("state", "list").out.split() == ["file.b", "file.c"]
    assert lab("plan", "--detailed-exitcode").code == 0


def test_a_failure_stops_only_what_needs_it(tmp_path: Path) -> None:
    """One resource fails: what needs it is not tried, the rest is done, and the next apply finishes."""
    lab = TestLab.make(tmp_path, {**FILES, "file/free": "path: ROOT/out/free.txt\ncontent: x\n"})
    (tmp_path / "out/a.txt").mkdir(parents=True)
    ran = lab("apply", "--yes")
    assert ran.code == 1
    assert "exists already" in ran.err or "is a directory" in ran.err
    lab.write("conf/file/a.yaml", "path: ROOT/out/a.txt\ncontent: hello\noverwrite: true\n")
    ran = lab("apply", "--yes")
    assert ran.code == 1
    assert "1 done, 1 failed, 1 not tried" in ran.out
    assert "needs file.a" in ran.err
    (tmp_path / "out/a.txt").rmdir()
    assert lab("apply", "--yes").code == 0
    assert tree(tmp_path / "out") == {"a.txt": b"hello", "b.txt": b"world", "free.txt": b"x"}


def test_a_saved_plan_applies_exactly_and_refuses_when_stale(tmp_path: Path) -> None:
    """`lab apply FILE` does what was reviewed, or nothing."""
    lab = TestLab.make(tmp_path, FILES)
    assert lab("plan", "--out", str(tmp_path / "p.json")).code == 0
    lab.write("conf/file/a.yaml", "path: ROOT/out/a.txt\ncontent: other\n")
    ran = lab("apply", str(tmp_path / "p.json"))
    assert ran.code == 1
    assert "stale" in ran.err
    assert "file.a" in ran.err
    assert not (tmp_path / "out").exists()
    lab.write("conf/file/a.yaml", FILES["file/a"])
    assert lab("apply", str(tmp_path / "p.json")).code == 0
    assert lab("apply", str(tmp_path / "p.json")).code == 1
    (tmp_path / "broken.json").write_text("{")
    assert "no saved plan" in lab("apply", str(tmp_path / "broken.json")).err
    ran = lab.run("plan", "--out", str(tmp_path / "conf"))
    assert ran.code == 1
    assert f"a folder stands where a file must be: {tmp_path}/conf\n" in ran.err


def test_import_adopts_and_destroy_releases(tmp_path: Path) -> None:
    """What was there before Lab is recorded by import, updated by apply, and left when it is no longer declared."""
    lab = TestLab.make(tmp_path, {"file/a": FILES["file/a"]})
    lab.write("out/a.txt", "mine")
    ran = lab("plan")
    assert ran.code == 1
    assert "lab import file.a" in ran.out
    assert lab("import", "file.a").code == 0
    planned = lab("plan").out
    assert "update" in planned, planned
    assert "path: " not in planned  # it is where it should be: only what differs is told
    lab.write("out/a.txt", "hello")
    assert lab("apply", "--yes").code == 0
    (tmp_path / "conf/file/a.yaml").unlink()
    lab.write("conf/file/z.yaml", "path: ROOT/out/z.txt\ncontent: z\n")
    assert "release" in lab("plan").out
    assert "released" in lab("apply", "--yes").err
    assert "release" in lab("history").out
    assert (tmp_path / "out/a.txt").read_text() == "hello"


def test_rollback_and_an_older_commit(tmp_path: Path) -> None:
    """Every apply is a generation with its commit; rollback applies an older one, checkout and apply as well."""
    lab = TestLab.make(tmp_path, FILES)
    lab.write(".gitignore", "state/\nout/\nstore/\n")
    lab.git("init", "-q", "-b", "main")
    lab.git("add", "-A")
    lab.git("commit", "-qm", "one")
    lab("apply", "--yes")
    lab.write("conf/file/a.yaml", "path: ROOT/out/a.txt\ncontent: changed\n")
    lab.git("commit", "-qam", "two")
    lab("apply", "--yes")
    assert (tmp_path / "out/a.txt").read_text() == "changed"
    against = lab("plan", "--against", "HEAD~1", "--markdown").out
    assert "hello → changed" in against
    assert "`file.a`" in against
    assert lab("rollback", "1", "--yes").code == 0
    assert (tmp_path / "out/a.txt").read_text() == "hello"
    history = json.loads(lab("history", "--json").out)
    assert [g["verb"] for g in history] == ["rollback", "apply", "apply"]
    assert history[2]["commit"] == lab.git("rev-parse", "HEAD~1").strip()
    assert lab("apply", "--yes").code == 0
    assert (tmp_path / "out/a.txt").read_text() == "changed"
    lab.git("checkout", "-q", "HEAD~1")
    assert lab("apply", "--yes").code == 0
    assert (tmp_path / "out/a.txt").read_text() == "hello"


def test_rollback_without_git(tmp_path: Path) -> None:
    """Outside a repository the ledger's own copy of the declarations is enough."""
    lab = TestLab.make(tmp_path, FILES)
    lab("apply", "--yes")
    lab.write("conf/file/a.yaml", "path: ROOT/out/a.txt\ncontent: changed\n")
    lab("apply", "--yes")
    assert lab("rollback", "1", "--yes").code == 0
    assert (tmp_path / "out/a.txt").read_text() == "hello"


def test_apply_policy(tmp_path: Path) -> None:
    """`apply.require: clean` refuses a dirty tree; `merged` an unmerged commit."""
    lab = TestLab.make(tmp_path, FILES, head="apply: {require: clean}\n")
    lab.write(".gitignore", "state/\nout/\nstore/\n")
    lab.git("init", "-q", "-b", "main")
    lab.git("add", "-A")
    lab.git("commit", "-qm", "one")
    lab.write("conf/file/a.yaml", "path: ROOT/out/a.txt\ncontent: dirty\n")
    ran = lab("apply", "--yes")
    assert ran.code == 1
    assert "uncommitted" in ran.err
    lab.write("conf/lab.yaml", (tmp_path / "conf/lab.yaml").read_text().replace("clean", "merged"))
    lab.git("checkout", "-qb", "topic")
    lab.git("commit", "-qam", "two")
    ran = lab("apply", "--yes")
    assert ran.code == 1
    assert "not merged" in ran.err
    lab.git("branch", "-qf", "main")
    assert lab("apply", "--yes").code == 0


def test_profiles_leave_each_other_alone(tmp_path: Path) -> None:
    """Planning one profile never destroys what only the other declares."""
    lab = TestLab.make(tmp_path, FILES)
    lab.write(
        "conf/lab.yaml",
        "defaults: [_self_, {profile: one}]\nlab: {name: t, id: 00000000-test, store: ROOT/store}\n",
    )
    lab.write("conf/profile/one.yaml", "# @package _global_\nresources: {file: [a]}\n")
    lab.write("conf/profile/two.yaml", "# @package _global_\nresources: {file: [c]}\n")
    lab.write("conf/file/c.yaml", "path: ROOT/out/c.txt\ncontent: c\n")
    assert lab("apply", "--yes").code == 0
    plan = json.loads(lab("plan", "--json", "profile=two").out)
    assert plan["summary"]["destroy"] == 0
    assert lab("apply", "--yes", "profile=two").code == 0
    assert tree(tmp_path / "out") == {"a.txt": b"hello", "c.txt": b"c"}
    assert "of another profile" in lab("status").out
    assert lab("plan", "--detailed-exitcode").code == 0


def test_only_and_exclude(tmp_path: Path) -> None:
    """`--only` takes what it names and what that needs; `--exclude` drops what it names and what needs that."""
    lab = TestLab.make(tmp_path, {**FILES, "file/free": "path: ROOT/out/free.txt\ncontent: x\n"})
    assert lab("apply", "--yes", "--only", "file.b").code == 0
    assert sorted(tree(tmp_path / "out")) == ["a.txt", "b.txt"]
    lab("destroy", "--all", "--yes")
    assert lab("apply", "--yes", "--exclude", "file.a").code == 0
    assert sorted(tree(tmp_path / "out")) == ["free.txt"]
    assert "did you mean" in lab("plan", "--only", "file.fre").err


def test_state_verbs(tmp_path: Path) -> None:
    """The ledger can be listed, shown, moved, forgotten, copied, checked and restored."""
    lab = TestLab.make(tmp_path, FILES)
    lab("apply", "--yes")
    assert lab("state", "list").out == "file.a\nfile.b\n"
    assert json.loads(lab("state", "show", "file.a").out)["facts"]["mode"] == "0644"
    assert lab("state", "check").code == 0
    assert lab("state", "backup").code == 0
    assert lab("state", "mv", "file.a", "file.x").code == 0
    assert lab("state", "rm", "file.x").code == 0
    assert (tmp_path / "out/a.txt").exists()
    assert lab("state", "restore").code == 0
    assert lab("state", "list").out == "file.a\nfile.b\n"
    assert lab("plan", "--detailed-exitcode").code == 0
    assert "did you mean" in lab("state", "show", "file.aa").err


def test_the_json_plan_keeps_to_its_schema(tmp_path: Path) -> None:
    """Plans with creates, drift, destroys and problems are what docs/plan-schema.json says."""
    import jsonschema

    from tests.labs import REPO

    schema = json.loads((REPO / "docs/plan-schema.json").read_text())
    lab = TestLab.make(tmp_path, FILES)
    jsonschema.validate(json.loads(lab("plan", "--json").out), schema)
    lab("apply", "--yes")
    lab.write("out/a.txt", "hacked")
    (tmp_path / "conf/file/b.yaml").unlink()
    lab.write("conf/file/c.yaml", "path: ROOT/out/c.txt\ncontent: x\n")
    lab.write("out/c.txt", "foreign")
    plan = json.loads(lab("plan", "--json").out)
    jsonschema.validate(plan, schema)
    assert plan["problems"][0]["file"] == "conf/file/c.yaml"
    assert plan["problems"][0]["line"] == 1


def test_moved_renames_without_rebuilding(tmp_path: Path) -> None:
    """`moved:` in lab.yaml gives a resource another name even where nothing it claims would tell."""
    lab = TestLab.make(tmp_path, FILES)
    lab("apply", "--yes")
    (tmp_path / "conf/file/b.yaml").rename(tmp_path / "conf/file/c.yaml")
    lab.write("conf/file/c.yaml", "path: ROOT/out/c.txt\ncontent: world\nneeds: [file.a]\n")
    assert "was" not in lab("plan").out
    head = (tmp_path / "conf/lab.yaml").read_text()
    lab.write("conf/lab.yaml", head + "moved: [{from: file.b, to: file.c}]\n")
    out = lab("plan").out
    assert "was file.b" in out
    assert "destroy" not in out
    assert lab("apply", "--yes").code == 0
    assert sorted(tree(tmp_path / "out")) == ["a.txt", "c.txt"]
    assert lab("plan", "--detailed-exitcode").code == 0


@pytest.mark.parametrize("content", ["hello", "other"])
def test_a_place_that_another_is_about_to_leave_is_not_taken_before(tmp_path: Path, content: str) -> None:
    """Not adopted either, where the same is there already: it would go along with who leaves."""
    lab = TestLab.make(tmp_path, {"file/a": FILES["file/a"], "file/b": FILES["file/b"].replace("[file.a]", "[]")})
    assert lab("apply", "--yes").code == 0
    lab.write("conf/file/a.yaml", "path: ROOT/out/c.txt\ncontent: hello\n")
    lab.write("conf/file/d.yaml", f"path: ROOT/out/a.txt\ncontent: {content}\n")
    before = tree(tmp_path / "out")
    for words in ((), ("--only", "file.d")):
        ran = lab("apply", "--yes", *words)
        assert ran.code == 1
        assert "file.d cannot have the path" in ran.err
        assert "run `lab apply --only file.a` first" in ran.err
        assert tree(tmp_path / "out") == before
    assert lab("apply", "--yes", "--only", "file.a").code == 0
    assert lab("apply", "--yes").code == 0
    assert tree(tmp_path / "out") == {"a.txt": content.encode(), "b.txt": b"world", "c.txt": b"hello"}
    assert "No changes" in lab("plan").out
