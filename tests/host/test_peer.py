"""The broker outlives what a guest can do to it: no files left, answers that never come, answers that are none."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.adapters import guest_account
from lab.app.broker import Broker
from lab.core.problem import Problems

CROWDED = """
import resource, socket, sys, threading
from pathlib import Path
from lab.adapters import peer

path = Path(sys.argv[1])
server = peer.listen(path)
given = (server, lambda uid, question: {"code": 0}, lambda uid, why: None)
threading.Thread(target=peer.serve, args=given, daemon=True).start()
assert peer.ask(path, {}, timeout=20) == {"code": 0}
waiting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
held = []
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        held.append(open("/dev/null"))
except OSError:
    pass
waiting.connect(str(path))  # accepting it needs a file, and there is none
threading.Event().wait(0.5)
for f in held:
    f.close()
waiting.close()
print(peer.ask(path, {}, timeout=20))
server.shutdown(2)
"""


def test_it_answers_again_once_it_has_files_to_spare(tmp_path: Path) -> None:
    """A guest with many runs takes the broker's files; it waits, and does not end."""
    argv = [sys.executable, "-c", CROWDED, str(tmp_path / "s")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=90)
    assert done.stdout == "{'code': 0}\n", done.stderr


@pytest.mark.parametrize("may_kill", [True, False])
def test_what_a_guest_stops_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, may_kill: bool) -> None:
    """A guest may stop any process of theirs, and keep its pipes open with another."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *words: str) -> subprocess.Popen[bytes]:
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        started.append(subprocess.Popen(["sh", "-c", "sleep 40 & kill -STOP $$"], start_new_session=True, **pipes))
        return started[-1]

    def refused(self: Any) -> None:
        raise PermissionError  # as sudo, which is root's, answers its caller

    monkeypatch.setattr(guest_account, "start", start)
    with monkeypatch.context() as patched:
        if not may_kill:
            patched.setattr(subprocess.Popen, "kill", refused)
        began = time.monotonic()
        assert guest_account.ask("ann", "used", timeout=1) == {}
        assert time.monotonic() - began < 20
    os.killpg(started[0].pid, 9)
    started[0].wait(20)


def test_one_guest_does_not_keep_the_others_from_being_looked_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nonsense from the account of one is noted once; who holds too much is ended all the same."""
    turns = 0

    def sleep(seconds: float) -> None:
        nonlocal turns
        turns += 1
        if turns > 2:
            raise KeyboardInterrupt

    def ask(name: str, word: str) -> dict[str, Any]:
        if word == "end":
            return {"ended": 1}
        return {"used": "nonsense" if name == "ann" else 11}

    noted: list[tuple[str, str]] = []
    monkeypatch.setattr("lab.app.broker.time", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(guest_account, "names", lambda: ["ann", "bob"])
    monkeypatch.setattr(guest_account, "rights", lambda name: {"limits": {"disk": 10}})
    monkeypatch.setattr(guest_account, "ask", ask)
    broker = Broker.__new__(Broker)
    broker.faults = {}
    monkeypatch.setattr(broker, "note", lambda who, what, **more: noted.append((who, what)))
    with pytest.raises(KeyboardInterrupt):
        broker._watch()
    assert noted == [
        ("ann", "could not be looked after"),
        ("bob", "all they ran was ended"),
        ("bob", "all they ran was ended"),
    ]


@pytest.mark.parametrize("told", [{}, {"used": "0"}, {"used": None}])
def test_no_run_starts_where_it_cannot_be_counted_what_its_guest_holds(
    monkeypatch: pytest.MonkeyPatch, told: dict[str, Any]
) -> None:
    """A guest who stops the counting does not escape the limit by it."""
    monkeypatch.setattr(guest_account, "ask", lambda name, word: told)
    with pytest.raises(Problems, match="could not be counted"):
        Broker.__new__(Broker)._run("ann", {"limits": {"disk": 10}}, ["train"])


def test_a_guest_cannot_fill_the_owners_disk_with_what_is_noted_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nonsense is noted as seldom as questions, and of a long command its beginning."""
    noted: list[str] = []
    broker = Broker.__new__(Broker)
    broker.room = {}
    monkeypatch.setattr(broker, "note", lambda who, what, **more: noted.append(what))
    for _ in range(5000):
        broker.refused(os.getuid(), "the question is no JSON")
    assert 1 <= len(noted) < 1000
    me = pwd.getpwuid(os.getuid()).pw_name
    monkeypatch.setattr("lab.app.broker.accounts.members", lambda group: [me])
    monkeypatch.setattr(guest_account, "rights", lambda name: {"may": []})
    broker.room, noted[:] = {}, []
    assert broker.answer(os.getuid(), {"words": ["apply", *["x" * 4000] * 15]})["code"] == 1
    assert [len(n) <= 4096 for n in noted] == [True]
