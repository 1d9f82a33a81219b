"""Text: a plan for people. Rendering returns text; colour is asked for by who prints."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from lab.core.change import Change
from lab.core.forecast import STALE, Forecast
from lab.core.language import t
from lab.core.problem import Problem
from lab.core.units import duration, size
from lab.plan.decide import told
from lab.plan.plan import Header, Plan

_SIGN = {
    "create": ("+", "32"),
    "update": ("~", "33"),
    "replace": ("~", "33"),
    "repair": ("!", "35"),
    "destroy": ("-", "31"),
    "adopt": ("=", "36"),
    "move": ("→", "36"),
    "rerun": ("↻", "34"),
    "release": ("-", "36"),
    "none": (" ", "2"),
}
_WORDS = ("create", "update", "replace", "rerun", "repair", "destroy", "release", "adopt", "move")


def render(plan: Plan, *, colour: bool = False, verbose: bool = False, hint: bool = True) -> str:
    """The whole plan as text, without a final newline; `hint` ends it with the next command. Pure."""
    paint = _paint if colour else _plain
    todo = plan.todo
    lines: list[str] = []
    if not todo and not plan.problems:
        lines.append(nothing(plan))
        lines += _unknowns(plan.changes)
        return "\n".join(lines)
    lines += [heading(plan.header), ""]
    width = max((len(c.address) for c in todo), default=0)
    shown = plan.changes if verbose else todo
    for change in shown:
        lines += _change(change, width, paint, verbose)
    if todo:
        lines.append("")
        lines.append(totals(plan))
        lines += _more(plan, verbose)
    lines += _unknowns(plan.changes)
    if plan.problems:
        lines += ["", *problems(plan.problems)]
    elif todo and hint and plan.header.verb != "against":
        lines.append(t("Run `{command}` to do it, `lab show ADDRESS` to see why.", command=command(plan.header)))
    return "\n".join(lines)


def command(h: Header) -> str:
    """The command that does exactly what was planned. Pure."""
    words = ["lab", "apply", *h.overrides]
    for flag, patterns in (("--only", h.only), ("--exclude", h.exclude)):
        words += [word for pattern in patterns for word in (flag, pattern)]
    words += ["--allow-destroy"] if h.allow_destroy else []
    return shlex.join(words)


def heading(h: Header) -> str:
    """`Lab studio · profile demo · host linux_cpu · main@4c1e2a7 · generation 12`. Pure."""
    parts = [t("Lab {name}", name=h.lab)]
    if h.stage:
        parts.append(t("stage {name}", name=h.stage))
    if h.profile:
        parts.append(t("profile {name}", name=h.profile))
    if h.host:
        parts.append(t("host {name}", name=h.host))
    if h.revision:
        parts.append(f"{h.branch}@{h.revision[:7]}" + (t(" with uncommitted changes") if h.dirty else ""))
    parts.append(t("generation {n}", n=h.generation))
    return " · ".join(parts)


def nothing(plan: Plan) -> str:
    """`No changes. 26 resources are as declared (generation 13).` Pure."""
    h = plan.header
    stage = t(" Stage {name}.", name=h.stage) if h.stage else ""
    if len(plan.changes) == 1:
        return t("No changes. 1 resource is as declared (generation {g}).", g=h.generation) + stage
    said = t("No changes. {n} resources are as declared (generation {g}).", n=len(plan.changes), g=h.generation)
    return said + stage


def totals(plan: Plan) -> str:
    """`1 to replace, 23 unchanged.  Needs 1.6 MB of disk, at most 310 MB of memory, about 30 s.` Pure."""
    count = dict.fromkeys(_WORDS, 0)
    for change in plan.todo:
        count[change.word] += 1
    parts = [t(f"{{n}} to {w}", n=n) for w, n in count.items() if n]
    still = len(plan.changes) - len(plan.todo)
    if still:
        parts.append(t("{n} unchanged", n=still))
    line = ", ".join(parts) + "."
    needs = cost(plan.forecast.whole)
    if plan.forecast.whole.seconds and any(c.forecast.download and not c.forecast.seconds for c in plan.todo):
        needs[-1] = t("{time} besides the downloads", time=needs[-1])
    return line + (t("  Needs {cost}.", cost=", ".join(needs)) if needs else "")


def _more(plan: Plan, verbose: bool) -> list[str]:
    """What each volume must hold, where there are several; what is used together; the critical path, if asked."""
    found = plan.forecast
    lines = []
    if set(found.volumes) - {""}:
        for volume, need in sorted(found.volumes.items()):
            lines.append(t("On {volume}: {cost}.", volume=volume or t("the store"), cost=", ".join(cost(need))))
    if found.together:
        lines.append(t("Used together: {n} of memory.", n=size(found.together.value)))
    if verbose and len(found.path) > 1:
        lines.append(t("What takes longest: {path}.", path=" → ".join(found.path)))
    return lines


def cost(f: Forecast) -> list[str]:
    """A forecast's figures in words; what is not known is left out. Pure."""
    out = []
    if f.download and f.download.value:
        out.append(t("{n} to download", n=size(f.download.value)))
    if f.disk and f.disk.value:
        out.append(t("{n} on disk", n=size(f.disk.value)))
    if f.disk_peak and f.disk and f.disk_peak.value > f.disk.value * 1.01:
        out.append(t("{n} of disk meanwhile", n=size(f.disk_peak.value)))
    if f.memory and f.memory.value:
        out.append(t("{n} of memory", n=size(f.memory.value)))
    if f.tokens_per_second and f.tokens_per_second.value:
        rate = f"{f.tokens_per_second.value:.3g}"
        stale = f.tokens_per_second.source == STALE
        out.append(t("{n} tokens/s, by a stale calibration", n=rate) if stale else t("about {n} tokens/s", n=rate))
    if f.seconds and f.seconds.value >= 0.05:
        out.append(t("about {n}", n=duration(f.seconds.value)))
    return out


def problems(found: Iterable[Problem]) -> list[str]:
    """Each problem in its lines, then how many. Pure."""
    found = list(found)
    lines = [f"  ✗ {p}" if not p.file else str(p) for p in found]
    n = len(found)
    lines.append(t("1 problem. Nothing was changed.") if n == 1 else t("{n} problems. Nothing was changed.", n=n))
    return lines


def _change(change: Change, width: int, paint: _Paint, verbose: bool) -> list[str]:
    name = change.word
    sign, code = _SIGN[name]
    where = f"  ({change.where})" if change.where and change.fields else ""
    maybe = t(" (only if its content really changes)") if change.maybe else ""
    lines = [f"  {paint(sign, code)} {change.address:<{width}}  {t(name):<8}  {change.reason}{maybe}{where}".rstrip()]
    more = change.fields if len(change.fields) > 3 or verbose else ()
    lines += [f"      {told(d)}" for d in more]
    if change.drift and (change.fields or verbose or len(change.drift) > 2):
        lines += [f"      {t('drift')}  {told(d)}" for d in change.drift[:10]]
        if len(change.drift) > 10:
            lines.append(f"      … {len(change.drift) - 10} more")
    figures = cost(change.forecast)
    if figures:
        lines.append(f"      {' · '.join(figures)}")
    lines += [f"      {note}" for note in change.forecast.notes]
    return lines


def _unknowns(changes: Iterable[Change]) -> list[str]:
    return [f"  ? {c.address}  {t('not known')}: {c.unknown}" for c in changes if c.unknown]


class _Paint:
    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.on else text


_paint, _plain = _Paint(True), _Paint(False)
