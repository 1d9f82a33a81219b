"""validate: every problem of the declarations at once; the machine is not looked at."""

from __future__ import annotations

from dataclasses import dataclass

from lab.app.lab import Lab, read_machine
from lab.core.problem import Problem, Problems


@dataclass(frozen=True)
class Validated:
    """What was looked at, and what is wrong with it."""

    resources: dict[str, int]
    """Profile (empty where the lab has none) → how many resources it declares."""
    problems: tuple[Problem, ...]


def validate(lab: Lab, *, profiles: bool = False) -> Validated:
    """What is wrong in conf/: under the profile in force, or under each. Files no profile chooses are checked too."""
    from lab.declare import load

    found: dict[str, int] = {}
    problems: dict[Problem, None] = {}
    names: list[str | None] = [*sorted(p.stem for p in (lab.conf / "profile").glob("*.yaml"))] if profiles else []
    for profile in names or [None]:
        try:
            declared = load(
                lab.source or lab.root,
                lab.overrides,
                profile=profile,
                cache=lab.state / "cache" / "declare",
                machine=read_machine,
                lives=lab.root,
                everything=True,
            )
            found[declared.profile] = len(declared.declarations)
        except Problems as e:
            problems |= dict.fromkeys(e.problems)
    return Validated(found, tuple(sorted(problems, key=lambda p: (p.file, p.line, p.column, p.summary))))
