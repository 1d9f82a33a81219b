"""The audit log only grows: a line altered, taken out or moved is found. Proves S2-3.9-2 (applies and runs)."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab.adapters import audit
from tests.labs import TestLab


def test_every_entry_is_kept_in_order_whoever_writes_at_once(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: audit.append(path, "ann" if n % 2 else "ben", "run", n=n), range(60)))
    assert audit.verify(path) == (60, "")
    assert len(list(audit.entries(path, "ann"))) == 30
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("harm", ["alter", "remove", "swap", "insert"])
def test_tampering_is_found_at_its_line(tmp_path: Path, harm: str) -> None:
    path = tmp_path / "audit.jsonl"
    for n in range(6):
        audit.append(path, "ann", "run", n=n)
    lines = path.read_text().splitlines()
    if harm == "alter":
        lines[3] = json.dumps({**json.loads(lines[3]), "who": "ben"})
    elif harm == "remove":
        del lines[3]
    elif harm == "swap":
        lines[3], lines[4] = lines[4], lines[3]
    else:
        lines.insert(3, lines[1])
    path.write_text("\n".join(lines) + "\n")
    sound, wrong = audit.verify(path)
    assert sound == 3
    assert wrong.startswith("line 4")


def test_a_log_that_was_cut_at_its_end_is_told(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for n in range(3):
        audit.append(path, "ann", "run", n=n)
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:2]))
    assert audit.verify(path) == (2, "its end was cut off: the last entry that was written is not there")
    path.write_text("")
    assert audit.verify(path)[0] == 0
    assert audit.verify(path)[1]


def test_a_long_entry_is_cut_and_a_torn_line_is_told(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit.append(path, "ann", "run", text="x" * 200_000)
    assert path.stat().st_size < 1000
    with path.open("ab") as f:
        f.write(b'{"at": 1, "who"')
    audit.append(path, "ann", "run")
    assert audit.verify(path) == (1, "line 2 is no whole entry")
    assert len(list(audit.entries(path))) == 2


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs are put aside from 2,000 bytes on, three of them kept."""
    monkeypatch.setattr(audit, "SIZE", 2000)
    monkeypatch.setattr(audit, "KEPT", 3)


@pytest.mark.usefixtures("short")
def test_a_log_that_grows_is_put_aside_and_the_chain_goes_on(tmp_path: Path) -> None:
    """Whoever writes at once: it stays small, and what is kept is the newest, in order, in one chain."""
    path = tmp_path / "audit.jsonl"
    for n in range(12):
        audit.append(path, "ann", "run", n=n)
    assert len(audit.aside(path)) == 1
    assert audit.verify(path) == (12, "")
    with ThreadPoolExecutor(8) as pool:
        hashes = list(pool.map(lambda n: audit.append(path, "ben", "run", n=n), range(12, 100)))
    kept = [e["hash"] for e in audit.entries(path)]
    assert len(set(kept)) == len(kept) >= 20
    assert set(kept) <= set(hashes)
    assert audit.verify(path) == (len(kept), "")
    assert len(audit.aside(path)) == 3
    files = [p for p in tmp_path.iterdir() if p.suffix == ".jsonl"]
    assert all(p.stat().st_size < 2500 and p.stat().st_mode & 0o777 == 0o600 for p in files)


@pytest.mark.usefixtures("short")
def test_what_was_put_aside_is_verified_too(tmp_path: Path) -> None:
    """A line altered there, a part taken out, the newest emptied; a kill just after one was put aside is none of it."""
    path = tmp_path / "audit.jsonl"
    for n in range(60):
        audit.append(path, "ann", "run", n=n)
    parts = [*audit.aside(path), path]
    whole = {p: p.read_bytes() for p in parts}
    count = audit.verify(path)[0]
    assert len(parts) == 4
    for part, old in whole.items():
        part.write_bytes(old.replace(b'"ann"', b'"ben"', 1))
        sound, wrong = audit.verify(path)
        assert sound < count
        assert wrong.endswith("line 1 was altered"), part
        part.write_bytes(old)
    for part in parts[:-1]:
        part.unlink()
        assert audit.verify(path)[1], part
        part.write_bytes(whole[part])
    path.write_bytes(b"")
    assert "cut off" in audit.verify(path)[1]
    path.write_bytes(whole[path])
    path.rename(path.with_name(f"audit.{int(parts[-2].name.split('.')[1]) + 1}.jsonl"))
    parts[0].unlink()
    assert audit.verify(path)[1] == ""
    audit.append(path, "ann", "run", n=60)
    assert audit.verify(path)[1] == ""
    assert path.stat().st_size < 500


def test_a_writer_killed_before_its_last_word_is_no_tampering(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for n in range(3):
        audit.append(path, "ann", "run", n=n)
    before = path.with_suffix(".last").read_text()
    audit.append(path, "ann", "run")
    path.with_suffix(".last").write_text(before)
    assert audit.verify(path) == (4, "")


def test_applies_and_runs_are_noted_with_who_what_and_outcome(tmp_path: Path) -> None:
    """Each leaves one entry, in order, and an altered one is found by `lab guest verify`."""
    lab = TestLab.make(
        tmp_path,
        {"file/a": "path: ROOT/a\ncontent: x\n", "experiment/e": "command: ['true']\nwhen: manual\n"},
    )
    assert lab("apply", "--yes", "--only", "file.a").code == 0
    assert lab("apply", "--yes", "--only", "file.a").code == 0
    assert lab("run", "e").code == 0
    (tmp_path / "conf/file/a.yaml").unlink()
    assert lab("apply", "--yes", "--only", "file.a").code == 0
    entries = list(audit.entries(tmp_path / "state/audit.jsonl"))
    assert [e["what"] for e in entries] == ["lab apply", "lab run e", "lab apply"]
    assert [e.get("outcome") for e in entries] == ["done", None, "done"]
    assert [e.get("generation") for e in entries] == [1, None, 2]
    said = lab("guest", "log").out
    assert said.index("lab run e") < said.rindex("lab apply")
    assert lab("guest", "verify").code == 0
    log = tmp_path / "state/audit.jsonl"
    log.write_text(log.read_text().replace("lab run e", "lab run f"))
    assert "line 2 was altered" in lab("guest", "verify").out


def scored(x: int = 0) -> dict[str, float]:
    """What the experiments below call."""
    return {"m": float(x)}


def test_the_feed_is_the_end_of_the_audit_log_and_knows_projects(tmp_path: Path) -> None:
    """S3-7.4-1: the last N events are the log's last N entries in order; one project's are those that name it."""
    call = "call: tests.host.test_audit:scored\nparams: {x: 1}\nmetrics: [m]\nisolation: inline\n"
    lab = TestLab.make(
        tmp_path,
        {
            "file/a": "path: ROOT/a\ncontent: x\n",
            "experiment/one": f"{call}project: apples\nwhen: manual\n",
            "experiment/two": f"{call}when: manual\n",
            "experiment/three": f"{call}project: apples\n",
        },
    )
    assert lab("apply", "--yes", "--only", "file.a").code == 0
    assert lab("run", "one").code == 0
    assert lab("run", "two").code == 0
    assert lab("sweep", "one", "x=1,2", "--minimize", "m", "--sampler", "grid").code == 0
    assert lab("apply", "--yes").code == 0
    assert lab("run", "two").code == 0
    log = [json.loads(line) for line in (tmp_path / "state/audit.jsonl").read_text().splitlines()]
    feed = json.loads(lab("activity", "--json").out)
    assert feed == log
    said = ["lab apply", "lab run one", "lab run two", "lab sweep one", "lab apply", "lab run two"]
    assert [e["what"] for e in feed] == said
    for n in (1, 3, 5):
        assert json.loads(lab("activity", "-n", str(n), "--json").out) == log[-n:]
    of_one = json.loads(lab("activity", "--project", "apples", "--json").out)
    assert of_one == [log[1], log[3], log[4]]
    assert json.loads(lab("activity", "--project", "apples", "-n", "2", "--json").out) == of_one[-2:]
    assert json.loads(lab("activity", "--project", "two", "--json").out) == [log[2], log[4], log[5]]
    shown = lab("activity", "-n", "2").out.splitlines()
    assert [line.split()[-1] for line in shown] == ["projects=apples,two", "projects=two"]
    wrong = lab("activity", "--project", "aples")
    assert wrong.code == 1
    assert "did you mean `apples`" in wrong.err
