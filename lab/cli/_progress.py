"""Progress: the events of an apply as lines, bars on a terminal, or JSON lines."""

from __future__ import annotations

import json
import threading
import time
from typing import IO

from lab.apply.events import Event
from lab.core.language import t
from lab.core.units import duration, size

_SIGN = {"done": ("✓", "32"), "failed": ("✗", "31"), "skipped": ("–", "2")}


class Progress:
    """Prints what happens while it happens; safe to call from many threads."""

    def __init__(self, out: IO[str], *, events: bool = False, quiet: bool = False) -> None:
        self.out = out
        self.terminal = out.isatty()
        self.events = events
        self.quiet = quiet
        self._lock = threading.Lock()
        self._bar = ""
        self._told: dict[str, float] = {}
        self._began: dict[str, tuple[float, float]] = {}

    def __call__(self, event: Event) -> None:
        with self._lock:
            if self.events:
                print(json.dumps(event.to_json(), ensure_ascii=False), file=self.out, flush=True)
            elif event.type == "progress":
                self._progress(event)
            elif event.type in _SIGN:
                self._end(event)
            elif event.type == "say" and not self.quiet:
                self._line(f"    {event.address + '  ' if event.address else ''}{event.text}")

    def _end(self, event: Event) -> None:
        sign, code = _SIGN[event.type]
        if event.type == "done" and self.quiet:
            return
        if self.terminal:
            sign = f"\x1b[{code}m{sign}\x1b[0m"
        what = event.text or t(_PAST.get(event.action, event.action))
        if event.type == "skipped":
            what = t("not tried: {why}", why=event.text)
        took = f"  {duration(event.seconds)}" if event.seconds >= 0.05 else ""
        self._line(f"  {sign} {event.address:<32}  {what}{took}")
        for p in event.problems:
            for k, v in (("why", p.why), ("do", p.do)):
                if v:
                    self._line(f"        {k:<4}  {v}")

    def _progress(self, event: Event) -> None:
        now = time.monotonic()
        first, start = self._began.setdefault(event.address, (now, event.done))
        rate = (event.done - start) / (now - first) if now > first + 0.5 else 0.0
        text = f"    {event.address}  {_amount(event.done, event.unit)}"
        if event.total:
            text += f" / {_amount(event.total, event.unit)} ({100 * event.done / event.total:.0f} %)"
        if rate > 0:
            text += f"  {_amount(rate, event.unit)}/s"
            if event.total:
                text += t("  {n} left", n=duration(max(0.0, event.total - event.done) / rate))
        if self.terminal:
            self._bar = text[:118]
            self.out.write(f"\r\x1b[K{self._bar}")
            self.out.flush()
        elif not self.quiet and now - self._told.get(event.address, first) >= 5:
            self._told[event.address] = now
            print(text, file=self.out, flush=True)

    def _line(self, text: str) -> None:
        if self._bar:
            self.out.write("\r\x1b[K")
            self._bar = ""
        print(text, file=self.out, flush=True)


def _amount(n: float, unit: str) -> str:
    return size(n) if unit == "B" else f"{n:.4g} {unit}"


_PAST = {
    "create": "created",
    "update": "updated",
    "replace": "replaced",
    "repair": "repaired",
    "destroy": "destroyed",
    "release": "released",
    "adopt": "adopted",
    "move": "moved",
    "rerun": "rerun",
}
