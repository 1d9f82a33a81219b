"""Ansible: every `Play` that is ready, in one run; its results by item, its process tree gone when we are."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from lab.adapters.processes import end_tree
from lab.core.facts import Facts
from lab.core.problem import Problems, problem
from lab.core.step import Cancelled, Play, Stage

TIMEOUT = 1800.0
"""Seconds one run may take."""


def perform(plays: Sequence[Play], stages: Sequence[Stage], *, check: bool = False) -> list[Facts | Exception]:
    """What each play came to, in order: the facts its module told, or the problem it met.

    With `check` nothing is changed and the facts say what would be.
    """
    stage = stages[0]
    password = _possible(plays, stage.root, check)
    with _folder(stage.scratch) as run:
        roles = _write_items(run, plays, stages)
        listen = _Listener(stages)
        why, status = _run(run, _playbooks(stage.root), roles, stages, listen, check, password)
        return [_answer(p, s, listen, why, status) for p, s in zip(plays, stages, strict=True)]


def _possible(plays: Sequence[Play], root: Path, check: bool) -> str:
    """The password sudo wants, empty where it wants none; raises Problems where nothing could be done."""
    try:
        import ansible_runner  # noqa: F401
    except ImportError as e:
        raise problem(
            "Ansible is not installed", why="host changes are made through it", do="pip install 'llm-lab[host]'"
        ) from e
    if os.geteuid() == 0 and os.environ.get("SUDO_UID") == str(root.stat().st_uid) != "0":
        raise problem(
            "root does not apply your lab", why="what it wrote would be root's, and its home is not yours",
            do="run `lab apply` without sudo: it asks for sudo's password itself",
        )  # fmt: skip
    return _become() if os.geteuid() and not check and any(p.become for p in plays) else ""


@cache
def _become() -> str:
    """What sudo wants to hear, asked once in a process."""
    if shutil.which("sudo") is None:
        raise problem("only root may do this", why="there is no sudo here", do="run `lab apply` as root")
    if subprocess.run(["sudo", "-n", "true"], capture_output=True, stdin=subprocess.DEVNULL).returncode == 0:
        return ""
    if not sys.stdin.isatty():
        raise problem(
            "sudo asks for a password, and nobody is there to give it",
            do="run `lab apply` in a terminal, or let sudo not ask this account",
        )
    import getpass

    given = getpass.getpass("Host changes need root. sudo's password: ")
    tried = subprocess.run(["sudo", "-S", "-k", "-p", "", "true"], input=given + "\n", capture_output=True, text=True)
    if tried.returncode:
        raise problem("sudo did not take that password", do="run `lab apply` again")
    return given


@contextmanager
def _folder(scratch: Path) -> Iterator[Path]:
    """A fresh private folder: Ansible keeps command lines, variables and results in it, so it goes afterwards."""
    run = Path(tempfile.mkdtemp(prefix="ansible-", dir=scratch))
    try:
        yield run
    finally:
        shutil.rmtree(run, ignore_errors=True)


def _playbooks(root: Path) -> Path:
    """The playbooks shipped with Lab, in the wheel or beside the package; a lab's own `playbooks/` goes before."""
    import lab

    package = Path(lab.__file__).parent
    for found in (root / "playbooks", package / "_shipped" / "playbooks", package.parent / "playbooks"):
        if (found / "lab.yml").is_file():
            return found
    raise problem("the playbooks are not there", why="Lab was installed without them", do="install it again")


def _write_items(run: Path, plays: Sequence[Play], stages: Sequence[Stage]) -> list[dict[str, Any]]:
    """One file of items per role; a secret's value goes into a file of its own, whose path the item names."""
    items: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for n, (play, stage) in enumerate(zip(plays, stages, strict=True)):
        item = {"id": str(stage.address), **play.args}
        for name, reference in play.secrets.items():
            path = run / f"secret-{n}-{name}"
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as f:
                f.write(stage.secret(reference))
            item[f"{name}_file"] = str(path)
        items.setdefault((play.role, play.become), []).append(item)
    roles: list[dict[str, Any]] = []
    for (role, become), each in items.items():
        path = run / f"items-{role}-{len(roles)}.json"
        path.write_text(json.dumps(each))
        roles.append({"role": role, "file": str(path), "become": become and os.geteuid() != 0})
    return roles


@dataclass
class _Listener:
    """What the events of a run say: each item's result, and why a role as a whole failed."""

    stages: Sequence[Stage]
    results: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    roles: dict[str, str] = field(default_factory=dict)
    error: BaseException | None = None

    def __call__(self, event: Mapping[str, Any]) -> bool:
        # The runner swallows an OSError of a handler and lets any other escape with its child alive.
        try:
            self._hear(_mapping(event))
        except BaseException as e:
            self.error = e
        return True

    def _hear(self, event: Mapping[str, Any]) -> None:
        data = _mapping(event.get("event_data"))
        result = _mapping(data.get("res"))
        if event.get("event") in ("runner_on_ok", "runner_on_failed", "runner_on_unreachable"):
            told = result.get("results")
            for item in told if isinstance(told, list) else ():
                if isinstance(item, Mapping) and "id" in item:
                    self.results[str(item["id"])] = item
                    self._say(item)
            if event["event"] != "runner_on_ok" and not (isinstance(told, list) and told):
                told = result.get("argument_errors")
                errors = told if isinstance(told, list) else [result.get("msg") or result.get("module_stderr") or ""]
                self.roles[str(data.get("role") or "")] = "; ".join(str(e).strip() for e in errors)[:500]

    def _say(self, item: Mapping[str, Any]) -> None:
        for stage in self.stages:
            if stage.address == item["id"]:
                for line in _list(item.get("done")):
                    stage.say(str(line))


def _run(
    run: Path,
    playbooks: Path,
    roles: list[dict[str, Any]],
    stages: Sequence[Stage],
    listen: _Listener,
    check: bool,
    password: str,
) -> tuple[str, str]:
    """Runs Ansible once: (why it was stopped, its own status)."""
    import ansible_runner

    began, stopped = time.monotonic(), ""

    def stop() -> bool:
        nonlocal stopped
        try:
            for stage in stages:
                stage.check()
        except Cancelled:
            stopped = "cancelled"
        if listen.error is not None:
            stopped = "error"
        elif time.monotonic() - began > TIMEOUT:
            stopped = stopped or "timeout"
        if stopped:
            end_tree(lambda arguments: any(str(run) in a for a in arguments))
        return bool(stopped)

    runner = ansible_runner.run(
        private_data_dir=str(run),
        project_dir=str(playbooks),
        playbook="lab.yml",
        inventory="localhost ansible_connection=local",
        extravars={
            "lab_plays": roles,
            "lab_system": platform.system().lower(),
            "ansible_python_interpreter": sys.executable,
        },
        cmdline=" ".join([*(["--check"] if check else []), *(["--ask-become-pass"] if password else [])]) or None,
        passwords={r"BECOME password.*:\s*$": password} if password else None,
        envvars=_environment(run, playbooks),
        event_handler=listen,
        cancel_callback=stop,
        settings={"pexpect_timeout": 0.3, "suppress_env_files": True},
        quiet=True,
    )
    if listen.error is not None:
        raise listen.error
    if stopped == "cancelled":
        raise Cancelled("Ansible")
    return stopped, str(runner.status) if runner.status == "successful" else _said(runner.stdout)


def _mapping(told: Any) -> Mapping[str, Any]:
    return told if isinstance(told, Mapping) else {}


def _list(told: Any) -> Sequence[Any]:
    return told if isinstance(told, list) else ()


def _said(stdout: Any) -> str:
    """What Ansible says last when no task could tell: a playbook it cannot read, a host it cannot reach."""
    lines = [x.strip() for x in stdout if x.strip()]
    wrong = [n for n, x in enumerate(lines) if "ERROR" in x or "fatal" in x]
    return " ".join(lines[wrong[0] : wrong[0] + 6] if wrong else lines[-3:])[:500]


def _environment(run: Path, playbooks: Path) -> dict[str, str]:
    beside = str(Path(sys.executable).parent)
    return {
        "PATH": os.pathsep.join([beside, os.environ.get("PATH", "/usr/bin:/bin"), "/usr/sbin:/sbin"]),
        "ANSIBLE_CONFIG": str(playbooks / "ansible.cfg"),
        "ANSIBLE_HOME": str(run / "home"),
        "ANSIBLE_LOCAL_TEMP": str(run / "local"),
        "ANSIBLE_REMOTE_TEMP": str(run / "remote"),
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_RETRY_FILES_ENABLED": "0",
        "ANSIBLE_NOCOLOR": "1",
    }


def _answer(play: Play, stage: Stage, listen: _Listener, why: str, status: str) -> Facts | Problems:
    item = listen.results.get(str(stage.address))
    if item is None:
        because = listen.roles.get(play.role) or next(iter(listen.roles.values()), "") or status
        if why == "timeout":
            because = f"it took longer than {TIMEOUT / 60:.0f} minutes and was stopped"
        return problem(f"Ansible did not finish the {play.role} of {stage.address}", why=because, do="apply again")
    if item.get("failed"):
        return problem(
            f"{stage.address} could not be made", why=str(item.get("why", "")), do=str(item.get("do") or "apply again")
        )
    return {**_mapping(item.get("facts")), "changed": bool(item.get("changed"))}
