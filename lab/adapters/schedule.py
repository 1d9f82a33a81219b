"""Timers: launchd on macOS, systemd where it runs, cron elsewhere; for the person who applies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lab.adapters.files import put
from lab.core import schedule as text
from lab.core.facts import Facts
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_host import Schedule

MOMENT = 0.3
"""Seconds for which a listing of the crontab is taken as the present."""
_CRON = threading.Lock()


class _Listing:
    """The crontab as last listed."""

    at = float("-inf")
    lines: tuple[str, ...] = ()


def perform(step: Schedule, stage: Stage) -> Facts:
    """The command runs by itself as declared, or no longer."""
    argv = (*program(), "-C", str(stage.root), *step.words, *([f"stage={stage.stage}"] if stage.stage else []))
    manager = _manager()
    if step.every and not manager:
        raise problem(
            f"nothing here runs `lab {' '.join(step.words)}` {step.every}",
            why="neither systemd nor cron runs on this machine",
            do="install cron, or leave `every` out and run it yourself",
        )
    for other in (_systemd, _launchd, _cron):
        other(step.name, step.every if other.__name__ == f"_{manager}" else "", argv, stage)
    return {"manager": manager}


def program() -> tuple[str, ...]:
    """How `lab` is started from outside: the command beside this Python, else the module."""
    beside = Path(sys.executable).with_name("lab")
    return (str(beside),) if beside.exists() else (sys.executable, "-m", "lab")


def _manager() -> str:
    if sys.platform == "darwin":
        return "launchd"
    if Path("/run/systemd/system").is_dir():
        return "systemd"
    return "cron" if shutil.which("crontab") else ""


def units() -> Path:
    """Where systemd reads units: the system's for root, else the person's own."""
    if os.geteuid() == 0:
        return Path("/etc/systemd/system")
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def agents() -> Path:
    """Where launchd reads jobs: the system's for root, else the person's own."""
    return Path("/Library/LaunchDaemons") if os.geteuid() == 0 else Path.home() / "Library" / "LaunchAgents"


def observe(name: str) -> str | None:
    """When a timer of the lab runs, as declared; None where there is none."""
    unit = units() / f"{name}.timer"
    if unit.is_file():
        made = text.parse_mark(unit.read_text())
        every = str((made or {}).get("every", ""))
        sound = (
            every
            and text.systemd(name, every, ["lab"])[f"{name}.timer"].splitlines()[5:]
            == (unit.read_text().splitlines()[5:])
        )
        return every if sound else "altered by hand"
    plist = agents() / f"{name}.plist"
    if sys.platform == "darwin" and plist.is_file():
        import plistlib

        found: dict[str, Any] = plistlib.loads(plist.read_bytes())
        return str(found.get("EnvironmentVariables", {}).get("LAB_EVERY", "altered by hand"))
    for line in _listed():
        if line.endswith(f" # {name}"):
            fields = " ".join(line.split()[:5])
            said = line.removesuffix(f" # {name}").rpartition(" # ")[2]
            if re.fullmatch(text.PATTERN, said) and text.cron(said) == fields:
                return said  # `daily` and `03:00` look the same to cron
            return next((e for e in _likely(fields)), fields)
    return None


def _likely(fields: str) -> Sequence[str]:
    named = [e for e in text.PERIOD if text.cron(e) == fields]
    minute, hour, day, _, weekday = fields.split()
    if named or not (minute.isdigit() and hour.isdigit() and day == "*"):
        return named
    prefix = f"{text.DAYS[int(weekday)]} " if weekday.isdigit() else ""
    return [f"{prefix}{int(hour):02d}:{int(minute):02d}"]


def _systemd(name: str, every: str, argv: Sequence[str], stage: Stage) -> None:
    folder = units()
    files = text.systemd(name, every, argv) if every else {}
    user = [] if os.geteuid() == 0 else ["--user"]
    if every:
        for each, content in files.items():
            put(folder / each, content.encode())
        _tell("systemctl", *user, "daemon-reload")
        _tell("systemctl", *user, "enable", "--now", f"{name}.timer", must=True)
        if user:
            _tell("loginctl", "enable-linger")  # a person's timers run only while they are logged in, without it
    elif (folder / f"{name}.timer").exists():
        _tell("systemctl", *user, "disable", "--now", f"{name}.timer")
        for suffix in ("timer", "service"):
            (folder / f"{name}.{suffix}").unlink(missing_ok=True)
        _tell("systemctl", *user, "daemon-reload")


def _launchd(name: str, every: str, argv: Sequence[str], stage: Stage) -> None:
    path = agents() / f"{name}.plist"
    domain = "system" if os.geteuid() == 0 else f"gui/{os.getuid()}"
    if path.exists():
        _tell("launchctl", "bootout", f"{domain}/{name}")
    if every:
        import plistlib

        log = stage.state / "log" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        job = plistlib.loads(text.launchd(name, every, argv, str(log)))
        job["EnvironmentVariables"]["LAB_EVERY"] = every
        put(path, plistlib.dumps(job))
        _tell("launchctl", "bootstrap", domain, str(path), must=True)
    else:
        path.unlink(missing_ok=True)


def _cron(name: str, every: str, argv: Sequence[str], stage: Stage) -> None:
    with _alone():
        _write_cron(name, every, argv)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """One at a time: a crontab is read and written whole, and timers made side by side would undo each other."""
    with _CRON:
        home = os.open(Path.home(), os.O_RDONLY)  # other labs of this person wait at the same door
        try:
            fcntl.flock(home, fcntl.LOCK_EX)
            yield
        finally:
            os.close(home)


def _write_cron(name: str, every: str, argv: Sequence[str]) -> None:
    lines = _crontab()
    kept = [x for x in lines if not x.endswith(f" # {name}")]
    if every:
        kept.append(text.cron_line(name, every, argv))
    if kept == lines:
        return
    content = "".join(f"{x}\n" for x in kept)
    _Listing.at = float("-inf")
    done = subprocess.run(["crontab", "-"], input=content, capture_output=True, text=True)
    if done.returncode:
        raise problem("cron did not take the timer", why=done.stderr.strip()[:200], do="see crontab(1)")


def _crontab() -> list[str]:
    if not shutil.which("crontab"):
        return []
    done = subprocess.run(["crontab", "-l"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return done.stdout.splitlines() if done.returncode == 0 else []


def _listed() -> Sequence[str]:
    """The crontab as of a moment ago: a plan asks for every timer at once, and one listing answers all."""
    with _CRON:
        if time.monotonic() - _Listing.at > MOMENT:
            _Listing.lines, _Listing.at = tuple(_crontab()), time.monotonic()
        return _Listing.lines


def _tell(*argv: str, must: bool = False) -> None:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    except FileNotFoundError:
        return
    if must and done.returncode:
        raise problem(f"{argv[0]} did not take the timer", why=done.stderr.strip()[:200], do=f"see {argv[0]}(1)")
