"""Schedule: when a command of the lab runs by itself, in the words of systemd, launchd and cron. Pure."""

from __future__ import annotations

import json
import plistlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
PATTERN = r"^(hourly|daily|weekly|monthly|(?:(sun|mon|tue|wed|thu|fri|sat) )?([01]\d|2[0-3]):[0-5]\d)$"
"""`hourly`, `daily`, `weekly`, `monthly`, `03:30` or `sun 04:00`."""
PERIOD = {"hourly": 3600, "daily": 86400, "weekly": 7 * 86400, "monthly": 31 * 86400}
MARK = "# lab: "


@dataclass(frozen=True, slots=True)
class When:
    """A time that comes again; None stands for every."""

    minute: int = 0
    hour: int | None = None
    weekday: int | None = None
    """0 is Sunday."""
    day: int | None = None

    @classmethod
    def parse(cls, text: str) -> When:
        """`text` as a time; ValueError where it is none."""
        if not re.fullmatch(PATTERN, text):
            raise ValueError(f"{text!r} is no schedule: expected daily, 03:30, sun 04:00, hourly, weekly or monthly")
        if text in PERIOD:
            return {"hourly": cls(), "daily": cls(0, 3), "weekly": cls(0, 3, 0), "monthly": cls(0, 3, None, 1)}[text]
        day, _, clock = text.rpartition(" ")
        hour, minute = clock.split(":")
        return cls(int(minute), int(hour), DAYS.index(day) if day else None)


def period(text: str) -> int:
    """Seconds between two runs of a schedule."""
    return PERIOD.get(text, 7 * 86400 if " " in text else 86400)


def cron(text: str) -> str:
    """The five fields of crontab(5)."""
    w = When.parse(text)
    fields = (w.minute, w.hour, w.day, None, w.weekday)
    return " ".join("*" if f is None else str(f) for f in fields)


def on_calendar(text: str) -> str:
    """systemd.time(7)'s calendar expression."""
    w = When.parse(text)
    day = f"{DAYS[w.weekday].capitalize()} " if w.weekday is not None else ""
    date = f"*-*-{w.day:02d}" if w.day is not None else "*-*-*"
    return f"{day}{date} {'*' if w.hour is None else f'{w.hour:02d}'}:{w.minute:02d}:00"


def systemd(name: str, text: str, argv: Sequence[str]) -> dict[str, str]:
    """File name → content of a service and its timer; a run that was missed while the machine slept is made up for."""
    mark = MARK + json.dumps({"every": text, "argv": list(argv[1:])})
    command = " ".join(quoted(a) for a in argv)
    return {
        f"{name}.service": (
            f"{mark}\n[Unit]\nDescription=Lab: {' '.join(argv[-2:])}\n\n[Service]\nType=oneshot\nExecStart={command}\n"
            "Nice=10\nIOSchedulingClass=idle\n"
        ),
        f"{name}.timer": (
            f"{mark}\n[Unit]\nDescription=Lab: when {' '.join(argv[-2:])} runs\n\n[Timer]\n"
            f"OnCalendar={on_calendar(text)}\nPersistent=true\nRandomizedDelaySec=60\n\n[Install]\nWantedBy=timers.target\n"
        ),
    }


def quoted(word: str) -> str:
    """A word of a systemd command line: `%` and `$` are doubled, quotes and backslashes escaped."""
    word = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return word if re.fullmatch(r"[A-Za-z0-9_@%$:.,/=+-]+", word) else f'"{word}"'


def launchd(name: str, text: str, argv: Sequence[str], log: str) -> bytes:
    """A launchd property list; launchd itself makes up for a run missed in sleep."""
    w = When.parse(text)
    fields = {"Minute": w.minute, "Hour": w.hour, "Weekday": w.weekday, "Day": w.day}
    return plistlib.dumps(
        {
            "Label": name,
            "ProgramArguments": list(argv),
            "StartCalendarInterval": {k: v for k, v in fields.items() if v is not None},
            "ProcessType": "Background",
            "LowPriorityIO": True,
            "StandardOutPath": log,
            "StandardErrorPath": log,
            "EnvironmentVariables": {"PATH": "/opt/homebrew/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"},
        }
    )


def cron_line(name: str, text: str, argv: Sequence[str]) -> str:
    """A line of a crontab, with what it was made from and its name at the end; cron reads `%` as a newline."""
    import shlex

    return f"{cron(text)} {shlex.join(argv)} # {text} # {name}".replace("%", "\\%")


def parse_mark(text: str) -> Mapping[str, object] | None:
    """What the first line of a unit says it was made from."""
    line = text.partition("\n")[0]
    try:
        found: Mapping[str, object] = json.loads(line[len(MARK) :]) if line.startswith(MARK) else {}
    except ValueError:
        return None
    return found or None
