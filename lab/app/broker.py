"""broker: answers guests on a unix socket, and starts their runs in their own accounts; every question is audited."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shlex
import threading
import time
from collections.abc import Mapping
from datetime import date
from typing import Any

from lab import __version__
from lab.adapters import accounts, audit, guest_account, peer
from lab.app import guest, guest_run
from lab.app.activity import projects
from lab.app.lab import Lab
from lab.core.guest_files import GROUP, SOCKET
from lab.core.problem import Problems, did_you_mean, problem
from lab.core.units import size

WORDS, LONG = 64, 4096
"""Words of a command at most, and characters of a word."""
RATE, BURST = 4.0, 40
"""Questions of one guest each second in the long run, and at once: what comes faster is neither answered nor kept."""
EVERY = 30.0
"""Seconds between two looks at guests whose time or room has run out."""
OWN = {"runs": "your runs", "logs": "what a run printed", "stop": "end a run", "resume": "go on with one"}
"""Verbs about a guest's own runs: their `lab` does them in their account, once they are audited."""
LOOK = {"list": "what you may use", "envs": "the environments among it", "status": "what is made of it",
        "show": "one of it, or a run", "log": "what was noted of you", "run": "start an experiment"}  # fmt: skip
OWNERS = ("apply", "plan", "destroy", "lock", "import", "rollback", "promote", "state", "sql", "gc", "sweep", "serve",
          "config", "init", "backup", "restore", "rebuild", "bundle", "access", "maintenance", "guest", "history",
          "compare", "reproduce", "drift", "verify", "validate", "graph", "models", "env", "track")  # fmt: skip
HELP = "\n".join(f"  lab {v:<8} {w}" for v, w in {**LOOK, **OWN}.items())


class Broker:
    """The one who answers. It acts with the owner's rights, and never reads what a guest could have written."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.log = guest.path(lab)
        self.composing = threading.Lock()
        self.room: dict[int, tuple[float, float]] = {}
        self.faults: dict[str, str] = {}
        self.server = peer.listen(guest_account.place() / os.path.basename(SOCKET))

    def serve(self) -> None:
        """Answers until it is asked to end, by the owner or root."""
        guest_account.kit()
        threading.Thread(target=self._watch, daemon=True).start()
        peer.serve(self.server, self.answer, self.refused)

    def refused(self, uid: int, why: str) -> None:
        """What was no question is noted, as seldom as questions are: it cannot fill the owner's disk."""
        if self._in_time(uid):
            self.note(_name(uid), "refused", why=why)

    def note(self, who: str, what: str, **more: Any) -> None:
        """One entry more in the audit log."""
        audit.append(self.log, who, what, **more)

    def answer(self, uid: int, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """What one question comes to: `{code, out, err}`, `{run}`, or `{local}` where the guest's own `lab` does it."""
        if question.get("ask") == "version":
            return {"version": __version__}
        if question.get("ask") == "end" and uid in (0, os.getuid()):
            with contextlib.suppress(OSError):  # macOS: a socket that listens is not connected
                self.server.shutdown(2)
            self.server.close()
            return {"code": 0}
        if not self._in_time(uid):
            return _refusal("too many questions", "wait a moment")
        name, words = _name(uid), question.get("words")
        rights = guest_account.rights(name) if name in accounts.members(GROUP) else {}
        if not rights:
            self.note(name, "refused", why="no guest")
            return _refusal(f"{name} is no guest of this lab")
        if not isinstance(words, list) or len(words) > WORDS or not all(isinstance(w, str) for w in words):
            self.note(name, "refused", why="no command")
            return _refusal("this is no command")
        if any(len(w) > LONG or "\0" in w for w in words):
            self.note(name, "refused", why="a word is too long")
            return _refusal("a word is too long")
        if words[:1] == ["--login"]:  # the session script tells it; whoever writes more of them writes of themselves
            self.note(name, f"login from {' '.join(words[1:])}"[:LONG].strip())
            return {}
        try:
            told = self._told(name, rights, words)
        except Problems as e:
            told = {"code": 1, "err": "\n".join(f"✗ {p}" for p in e.problems)}
        except Exception as e:  # whatever it is, a guest learns nothing of the owner's machine by it
            told = _refusal("the lab could not answer", "tell the owner of the lab") | {"fault": repr(e)[:500]}
        more = {k: told[k] for k in ("run", "projects", "fault") if k in told}
        self.note(name, shlex.join(["lab", *words])[:LONG], code=told.get("code", 0), **more)
        return {k: v for k, v in told.items() if k not in ("fault", "projects")}

    def _told(self, name: str, rights: Mapping[str, Any], words: list[str]) -> dict[str, Any]:
        words = words[1:] if words[:1] == ["guest"] else words
        verb, rest = (words[0], words[1:]) if words else ("--help", [])
        if over(rights):
            raise problem(f"your access ended on {rights['expires']}", do="ask the owner of the lab")
        if verb in ("--help", "-h", "help"):
            return {"out": f"usage: lab VERB …\n\n{HELP}\n\nRun parameters go as NAME=VALUE: `lab run train lr=0.1`."}
        if verb in OWN:
            return {"local": True}
        if verb == "run":
            return self._run(name, rights, rest)
        if verb in ("list", "envs", "status", "show"):
            return self._look(rights, verb, rest)
        if verb == "log":
            return {"out": guest.lines(list(audit.entries(self.log, name))[-200:])}
        if verb in OWNERS:
            raise problem(
                f"`lab {verb}` is the owner's", why="guests run and look, and never change the lab",
                do="`lab --help` says what you may",
            )  # fmt: skip
        raise problem(f"`{verb}` is no verb{did_you_mean(verb, [*OWN, *LOOK])}", do="see `lab --help`")

    def _look(self, rights: Mapping[str, Any], verb: str, rest: list[str]) -> dict[str, Any]:
        may = [m for m in rights["may"] if verb != "envs" or m.startswith("env.")]
        if verb == "show":
            if len(rest) != 1:
                raise problem("`lab show` takes one name", do="write `lab show ADDRESS`, or a run's name")
            if not guest_run.opened(rights, rest[0]):
                return {"local": True}
            may = [rest[0]]
        with self.composing:
            records = self.lab.again(()).records
            found = [a for m in may for a in ([m] if m in records else [r for r in records if r.startswith(f"{m}.")])]
            if verb == "show":
                facts = {a: dict(records[a].facts) for a in found}
                return {"out": json.dumps(facts, indent=1, default=str) if facts else f"{rest[0]} is not made yet."}
        lines = [f"{a:<32} {_place(records[a].facts)}" for a in found]
        lines += [f"{m:<32} {'run it: lab run ' + m.partition('.')[2] if _runs(m) else 'not made yet'}"
                  for m in may if m not in found and not any(a.startswith(f"{m}.") for a in found)]  # fmt: skip
        return {"out": "\n".join(lines) or "Nothing has been opened to you yet."}

    def _run(self, name: str, rights: Mapping[str, Any], rest: list[str]) -> dict[str, Any]:
        detach = [w for w in rest if w in ("-d", "--detach")]
        words = [w for w in rest if w not in ("-d", "--detach")]
        if flags := [w for w in words if w.startswith("-")]:
            raise problem(f"`lab run` takes no {flags[0]}", do="write `lab run NAME [PARAMETER=VALUE …] [-d]`")
        if not words:
            raise problem("`lab run` needs a name", do="see `lab list`")
        most = int((rights.get("limits") or {}).get("disk") or 0)
        held = guest_account.ask(name, "used").get("used") if most else 0
        if not isinstance(held, int):  # they may have stopped what was to count it
            raise problem("how much you hold could not be counted", do="try again; end what you run if it stays so")
        if held > most:
            raise problem(f"you hold {size(held)}, and may hold {size(most)}", do="remove something, then try again")
        with self.composing:
            lab, address = guest_run.composed(self.lab.again(()), rights, words)
            given = guest_run.handed(lab, address, name, rights)
            about = projects(lab, [address])
        process = guest_account.start(name)
        assert process.stdin
        assert process.stdout
        assert process.stderr
        try:
            process.stdin.write(json.dumps(given, default=str).encode())
            process.stdin.close()
        except BrokenPipeError:
            pass  # it refused: it says why
        first = process.stdout.readline(1 << 16)
        try:
            run = str(json.loads(first)["run"])
        except (ValueError, KeyError, TypeError):
            said = process.stderr.read(4096).decode(errors="replace").strip().splitlines()
            process.kill()
            process.wait()
            raise problem("the run could not be started", why=said[-1][:300] if said else "it said nothing") from None
        threading.Thread(target=self._until_its_end, args=(name, run, about, process), daemon=True).start()
        return {"run": run, "follow": not detach, "projects": about}

    def _until_its_end(self, name: str, run: str, about: list[str], process: Any) -> None:
        try:
            told = json.loads(process.stdout.readline(1 << 16))
            more = {k: told.get(k) for k in ("state", "seconds", "bytes") if isinstance(told.get(k), (str, int, float))}
        except (ValueError, AttributeError):
            more = {"state": "not known"}
        process.wait()
        self.note(name, f"{run} ended", projects=about, **more)

    def _watch(self) -> None:
        """Guests whose access ended, or who hold more than they may, run nothing any more."""
        while True:
            time.sleep(EVERY)
            for name in guest_account.names():
                with contextlib.suppress(OSError):  # the log's disk is full: the next is looked at all the same
                    self._look_after(name)

    def _look_after(self, name: str) -> None:
        fault = ""
        try:
            rights = guest_account.rights(name)
            why = self._too_much(name, rights) if rights else ""
            if why and guest_account.ask(name, "end").get("ended"):
                self.note(name, "all they ran was ended", why=why)
        except Exception as e:  # whatever one guest does, the others are looked after
            fault = repr(e)[:500]
        if fault and fault != self.faults.get(name):
            self.note(name, "could not be looked after", why=fault)
        self.faults[name] = fault

    def _too_much(self, name: str, rights: Mapping[str, Any]) -> str:
        if over(rights):
            return f"their access ended on {rights['expires']}"
        most = int((rights.get("limits") or {}).get("disk") or 0)
        held = int(guest_account.ask(name, "used").get("used", 0)) if most else 0
        return f"they held {size(held)} of {size(most)}" if held > most else ""

    def _in_time(self, uid: int) -> bool:
        left, at = self.room.get(uid, (float(BURST), time.monotonic()))
        now = time.monotonic()
        left = min(float(BURST), left + (now - at) * RATE)
        self.room[uid] = (max(0.0, left - 1), now)
        return left >= 1


def serve(lab: Lab) -> None:
    """Answers guests until it is asked to end; a Problem where one answers already."""
    guest.refuse_guests()
    guest_account.place()
    if guest_account.broker(__version__) != "silent":
        raise problem("a broker answers guests already", do="nothing is to be done")
    Broker(lab).serve()


def over(rights: Mapping[str, Any]) -> bool:
    """Whether a guest's time is over. Reads the clock."""
    return bool(rights.get("expires")) and date.today().isoformat() >= str(rights["expires"])


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _refusal(summary: str, do: str = "") -> dict[str, Any]:
    return {"code": 1, "err": f"✗ {summary}" + (f"\n      do  {do}" if do else "")}


def _place(facts: Mapping[str, Any]) -> str:
    return next((str(facts[k]) for k in ("view", "prefix", "path", "folder") if facts.get(k)), "made")


def _runs(address: str) -> bool:
    return address.startswith("experiment.")
