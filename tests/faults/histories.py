"""Histories: random lives of a lab of several kinds that refer to each other, and what must hold after each step.

Files, models from a folder and from a real server, datasets from a folder and from each other, and with
LAB_HISTORIES=heavy quantizations of a model of random weights. People declare, drop, rename and move, choose a profile,
apply, kill, tamper, roll back, destroy, free; `state mv` renames in the ledger.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from lab.cli.main import main
from lab.core.problem import Problems
from lab.ledger.ledger import Ledger
from lab.ledger.sqlite import File
from tests.faults import hook
from tests.faults.machine import InAFolder
from tests.faults.variants import VARIANTS, sources, weights
from tests.labs import Ran

HEAVY = os.environ.get("LAB_HISTORIES") == "heavy"
PATHS = ("p", "q", "deep/r", "deep/er/s")
SMALL = "# @package _global_\nresources: {file: 'a*', model: [], dataset: [], quantization: []}\n"
HOWS = ("flip", "shorten", "delete", "link", "chmod", "foreign")
Conf = dict[str, dict[str, Any]]


class Histories(InAFolder):
    """What is declared is kept beside the lab; after each good apply the machine is exactly that."""

    def __init__(self) -> None:
        super().__init__()
        self.lab.write("conf/profile/small.yaml", SMALL)
        self.lab.write("conf/profile/all.yaml", "# @package _global_\n")
        self._head()
        self.conf: Conf = {}
        self.then: dict[int, Conf] = {}
        self.settled = False
        """Whether nothing happened since a good apply of everything."""
        self.tampered = False
        self.mixed = False
        """Whether another profile has applied a file: what this one drops may stay as that one's."""
        self.finished: set[str] = set()
        """What a killed apply had recorded as done, and nobody has touched or declared otherwise since."""

    # --- declaring -------------------------------------------------------------------------------------------------

    def _head(self) -> None:
        head = f"lab: {{name: t, id: 00000000-test, store: {self.lab.root}/store}}\n"
        self.lab.write("conf/lab.yaml", f"defaults: [_self_, {{profile: all}}]\n{head}")

    def _write(self, address: str) -> None:
        self.settled, self.finished = False, set()
        path = f"conf/{address.replace('.', '/', 1)}.yaml"
        if address in self.conf:
            block = {k: v for k, v in self.conf[address].items() if not k.startswith("_")}
            self.lab.write(path, json.dumps(block))
        else:
            (self.lab.root / path).unlink()

    @rule(name=st.sampled_from("abc"), path=st.sampled_from(PATHS), text=st.sampled_from(["", "one", "ünïcode ☃"]))
    def declare_file(self, name: str, path: str, text: str) -> None:
        address, taken = f"file.{name}", {c.get("_path") for a, c in self.conf.items() if a != f"file.{name}"}
        if path not in taken:
            needs = [a for a in ("model.a",) if name == "c" and a in self.conf]
            block = {"path": f"{self.lab.root}/out/{path}", "content": text, "mode": "0644", "_path": path}
            self.conf[address] = {**block, **({"needs": needs} if needs else {})}
            self._write(address)

    @rule(name=st.sampled_from("ab"), n=st.sampled_from(VARIANTS), way=st.sampled_from(["path", "url"]))
    def declare_model(self, name: str, n: int, way: str) -> None:
        top, url = sources()
        block: dict[str, Any] = {"path": f"{top}/model{n}", "place": "copy", "_from": f"model{n}"}
        if way == "url":
            file = top / f"model{n}/model.safetensors"
            block = {"url": f"{url}/model{n}/model.safetensors", "_from": f"model{n}/model.safetensors"}
            block["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
        self.conf[f"model.{name}"] = block
        self._write(f"model.{name}")

    @rule(name=st.sampled_from("ab"), n=st.sampled_from(VARIANTS))
    def declare_rows(self, name: str, n: int) -> None:
        self.conf[f"dataset.{name}"] = {"path": f"{sources()[0]}/rows{n}", "_from": f"rows{n}"}
        self._write(f"dataset.{name}")

    @precondition(lambda self: "dataset.a" in self.conf)
    @rule()
    def derive_rows(self) -> None:
        self.conf["dataset.of_a"] = {"merge": ["a"], "_like": "dataset.a"}
        self._write("dataset.of_a")

    @precondition(lambda self: HEAVY)
    @rule(n=st.sampled_from(VARIANTS[:2]), kind=st.sampled_from(["Q4_0", "Q8_0"]))
    def declare_quantization(self, n: int, kind: str) -> None:
        self.conf["model.w"] = {"path": str(weights(n)), "place": "copy", "_from": f"weights{n}"}
        self.conf["quantization.w"] = {"of": "w", "format": "gguf", "type": kind}
        for address in ("model.w", "quantization.w"):
            self._write(address)

    @precondition(lambda self: self.conf)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        address = data.draw(st.sampled_from(sorted(self.conf)))
        users = {"model.a": "file.c", "dataset.a": "dataset.of_a", "model.w": "quantization.w"}
        user = users.get(address, "")
        for one in (user if user in self.conf and self._uses(user, address) else "", address):
            if one:
                del self.conf[one]
                self._write(one)

    def _uses(self, user: str, address: str) -> bool:
        return address in self.conf[user].get("needs", ()) or user in ("dataset.of_a", "quantization.w")

    @precondition(lambda self: self.settled and "file.b" in self.conf and "file.d" not in self.conf)
    @rule(ledger=st.booleans())
    def rename(self, ledger: bool) -> None:
        """A file's resource has another name: found by its path, or told to the ledger by hand."""
        self.conf["file.d"] = self.conf.pop("file.b")
        if ledger:
            moved = self.lab("state", "mv", "file.b", "file.d")
            assert moved.code == 0, moved
        for address in ("file.b", "file.d"):
            self._write(address)
        before = self.world()
        plan = self.lab("plan")
        assert "1 to create" not in plan.out, plan
        assert "to destroy" not in plan.out, plan
        self.apply()
        _same(before, self.world())

    # --- doing -----------------------------------------------------------------------------------------------------

    def _run(self, *words: str, at: int = 0) -> tuple[Ran, list[str]]:
        """A command in this process, killed at a boundary where one is given; and the addresses that had a step."""
        log = self.top / "log"
        log.unlink(missing_ok=True)
        back = hook.install(hook.Fault(str(self.lab.root), str(log), at, raising=True))
        out, err, code = io.StringIO(), io.StringIO(), -9
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(["-C", str(self.lab.root), *words], out, err)
        except hook.Killed:
            pass
        except Problems as e:
            code = 1
            print(e, file=err)
        except Exception:
            if not at:
                raise
        finally:
            back()
        said = out.getvalue() + err.getvalue()
        if code != -9 and not at:
            assert "Traceback" not in said, said
            assert "fault in Lab" not in said, said
        return Ran(code, out.getvalue(), err.getvalue()), [x["perform"] for x in hook.read(str(log)) if "perform" in x]

    @rule()
    def apply(self) -> None:
        before = self.world()
        if self.tampered and not self._refused(plan := self.lab("plan"), before):
            assert "No changes" not in plan.out, "the plan does not see what was done to the machine"
        ran, performed = self._run("apply", "--yes", "--allow-destroy")
        if self._refused(ran, before):
            return
        again = self.finished & set(performed)
        assert not again, f"finished work was repeated: {again}"
        self._good()
        self.exactly(self.conf)
        self.keep(self.conf)
        self.settled = True

    def _good(self) -> None:
        """What holds after every apply that ended well."""
        self.tampered, self.finished = False, set()
        assert "No changes" in (plan := self.lab("plan")).out, plan
        ran, performed = self._run("apply", "--yes")
        assert ran.code == 0, ran
        assert not performed, performed
        verified = self.lab("verify")
        assert verified.code == 0, verified
        checked = self.lab("models", "check")
        assert checked.code == 0, checked
        left = [str(p) for p in self.lab.root.rglob("*") if p.name.endswith((".lab-tmp", ".tmp", ".part"))]
        assert not left, left

    @rule(at=st.integers(1, 400))
    def kill(self, at: int) -> None:
        self.settled = self.tampered = False  # what was harmed may be mended by now
        ran, _ = self._run("apply", "--yes", "--allow-destroy", at=at)
        if ran.code == -9:
            self.finished |= self._recorded()
        self.keep(None)  # a generation that was begun is no state to go back to

    def _recorded(self) -> set[str]:
        """What the newest generation has finished."""
        ledger = self.lab.root / "state/ledger.sqlite"
        if not ledger.exists() or not ledger.stat().st_size:
            return set()
        with closing(Ledger.read(File(ledger), "")) as book:
            newest = int(book.sql("SELECT coalesce(max(number), 0) FROM generation")[0][0])
            return {str(a) for a, r in book.records().items() if not r.pending and r.generation == newest}

    @precondition(lambda self: self.settled and self.wanted(self.conf))
    @rule(data=st.data(), how=st.sampled_from(HOWS))
    def tamper(self, data: st.DataObject, how: str) -> None:
        """Somebody harms a file, a blob or a view; what is looked at by its stat shows it."""
        path = self.lab.root / data.draw(st.sampled_from(sorted(self.wanted(self.conf))))
        view = path.is_symlink()
        if how in ("chmod", "foreign") and view:
            return
        file = path.resolve() if how in ("flip", "shorten") else path
        if how == "flip" and file.stat().st_size:
            file.chmod(0o644)
            data_ = bytearray(file.read_bytes())
            data_[-1] ^= 1
            file.write_bytes(data_)
        elif how == "shorten" and file.stat().st_size:
            file.chmod(0o644)
            os.truncate(file, file.stat().st_size - 1)
        elif how == "delete":
            path.unlink()
        elif how == "link":
            path.unlink()
            path.symlink_to("/etc/hostname")
        elif how == "chmod":
            path.chmod(0o400)
        elif how == "foreign":
            path.write_text("somebody else's")
        else:
            return
        self.settled, self.tampered = False, True

    @precondition(lambda self: any(c is not None for c in self.then.values()))
    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(n for n, c in self.then.items() if c is not None)))
        before = self.world()
        ran, _ = self._run("rollback", str(number), "--yes")
        if self._refused(ran, before):
            return
        self.exactly(self.then[number])
        self.keep(self.then[number])
        self.settled = self.tampered = False
        self.finished = set()

    @rule()
    def small_profile(self) -> None:
        """Another profile declares one file: planning it leaves all that only this one declares."""
        before, mine = self.world(), self.wanted({a: c for a, c in self.conf.items() if a == "file.a"})
        ran, _ = self._run("apply", "profile=small", "--yes", "--allow-destroy")
        if self._refused(ran, before):
            return
        assert "No changes" in (plan := self.lab("plan", "profile=small")).out, plan
        after = self.world()
        _same(mine, {p: after.get(p, "gone") for p in mine})
        self.mixed = self.mixed or bool(mine)
        stored = {p: x for p, x in before.items() if p.startswith("store/")}
        _same(stored, {p: after.get(p, "gone") for p in stored})
        self.keep(None)
        self.settled = self.tampered = False
        self.finished = set()

    @rule()
    def gc(self) -> None:
        """Nothing that is declared, recorded or lies as it should goes."""
        before = self.world()
        ran, _ = self._run("gc", "--yes")
        assert ran.code == 0, ran
        kept = self.world()
        if self.settled:
            _same(before, kept)
            assert "No changes" in (plan := self.lab("plan")).out, plan

    @rule()
    def destroy(self) -> None:
        ran, _ = self._run("destroy", "--all", "--yes")
        assert ran.code == 0, ran
        _same({}, self.world())
        self.mixed = False
        assert "Nothing is recorded" in (left := self.lab("state", "list")).out, left
        self.keep(None)
        self.settled = self.tampered = False
        self.finished = set()

    # --- what must hold --------------------------------------------------------------------------------------------

    def _refused(self, ran: Ran, before: Mapping[str, str]) -> bool:
        """Whether nothing was done, and rightly: what is declared is taken by what is not Lab's, or no longer is."""
        if ran.code == 0:
            return False
        said = ran.out + ran.err
        assert ran.code == 1, said
        assert "not managed" in said or "not declared" in said or "same path" in said, said
        _same(before, self.world())
        return True

    def exactly(self, conf: Conf) -> None:
        """The machine is as declared, and nothing else is there but what another profile keeps."""
        wanted, found = self.wanted(conf), self.world()
        if self.mixed and "file.a" not in conf:
            extra = sorted(p for p in found.keys() - wanted.keys() if p.startswith("out/"))[:1]
            found = {p: x for p, x in found.items() if p not in extra}
        _same(wanted, found)

    def wanted(self, conf: Conf) -> dict[str, str]:
        """Path below the lab → what it holds, as declared."""
        out, top = {}, sources()[0]
        for address, block in conf.items():
            kind, name = address.split(".")
            if kind == "file":
                out[f"out/{block['_path']}"] = _hash(block["content"].encode()) + " 0644"
            if kind not in ("model", "dataset"):
                continue
            place = f"store/models/{name}/original" if kind == "model" else f"store/datasets/{name}/data"
            source = top / conf.get(block.get("_like", ""), block)["_from"]
            for file in sorted(source.rglob("*")) if source.is_dir() else [source]:
                if file.is_file():
                    shown = file.relative_to(source).as_posix() if source.is_dir() else file.name
                    out[f"{place}/{shown}"] = _hash(file.read_bytes())
        return out

    def world(self) -> dict[str, str]:
        """The files that are there; a file that is not Lab's is there too."""
        found = {}
        for top in ("out", "store/models", "store/datasets"):
            for file in sorted((self.lab.root / top).rglob("*")):
                shown = file.relative_to(self.lab.root).as_posix()
                if file.name == ".lab.json" or (top == "store/datasets" and "/data/" not in shown):
                    continue
                if not file.is_symlink() and file.is_dir():
                    continue
                if ".lab-tmp" in shown:
                    continue  # what a kill left: `_good` looks for it
                if top == "store/models" and shown.endswith(".gguf"):
                    continue  # made, not copied: `verify` judges it
                data = _hash(file.read_bytes()) if file.exists() else "leads nowhere"
                mode = f" {file.stat().st_mode & 0o7777:04o}" if top == "out" and not file.is_symlink() else ""
                found[shown] = data + (" link" if top == "out" and file.is_symlink() else mode)
        return found

    def keep(self, conf: Conf | None) -> None:
        """What the newest generation declared, if it is a new one; None where it is nothing to go back to."""
        ledger = self.lab.root / "state/ledger.sqlite"
        if ledger.exists() and ledger.stat().st_size:
            with closing(Ledger.read(File(ledger), "")) as book:
                number = int(book.sql("SELECT coalesce(max(number), 0) FROM generation")[0][0])
            if number and number not in self.then:
                self.then[number] = None if conf is None else {a: dict(c) for a, c in conf.items()}  # type: ignore[assignment]

    @invariant()
    def the_ledger_is_sound(self) -> None:
        ledger = self.lab.root / "state/ledger.sqlite"
        if ledger.exists() and ledger.stat().st_size:
            ran = self.lab("state", "check")
            assert ran.code == 0, ran


def _same(wanted: Mapping[str, str], found: Mapping[str, str]) -> None:
    differs = [
        f"{p}: {found.get(p)}, not {wanted.get(p)}" for p in {**wanted, **found} if wanted.get(p) != found.get(p)
    ]
    assert not differs, differs


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
