"""Every scenario file is a page: a sentence, conf, what is recorded, the world → the plan and the steps.

Sections, each `-- title --`:

- `conf/KIND/NAME.yaml` is what is declared now, `before/conf/…` what was declared at the last apply; `before` alone
  says that it is what is declared now.
- `recorded.yaml` gives recorded facts by address, where they are not simply what was wanted.
- `world.yaml` gives observed facts by address (null: absent, `{unknown: why}`: cannot be told), or under `files:` a
  file system for the kinds' own `observe`, and under `answers:` what `World.ask` says.

`pytest tests/scenarios --accept` rewrites the expected `plan` and `steps`.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lab.app.lab import Lab
from lab.app.plan import cost, moves, new_record
from lab.core.address import Address
from lab.core.change import Action
from lab.core.problem import Problems, Unknown
from lab.core.record import Record
from lab.plan import guards, text
from lab.plan.decide import Observation, Wanted
from lab.plan.plan import Header, Plan, make
from tests.doubles import MemoryWorld

HERE = Path(__file__).parent
SECTION = re.compile(r"^-- (.+?) --$", re.MULTILINE)
HEAD = "lab: {name: studio, id: 00000000-scenario, store: ROOT/store}\n"


def sections(page: str) -> dict[str, str]:
    """The sections of a scenario by title; the sentence under ''."""
    parts = SECTION.split(page)
    return {"": parts[0], **dict(zip(parts[1::2], (p.lstrip("\n") for p in parts[2::2]), strict=True))}


def written(root: Path, files: dict[str, str]) -> Path:
    """A lab folder with these conf files; `lab.yaml` is supplied."""
    for name, body in {"conf/lab.yaml": HEAD, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body.replace("ROOT", str(root)))
    return root


class Scenario(Lab):
    """A lab whose records and observations come from a scenario."""

    given: dict[Address, Record]

    @property
    def records(self) -> dict[Address, Record]:  # type: ignore[override]
        return self.given


def planned(page: dict[str, str], root: Path) -> tuple[Plan, Lab]:
    """The plan a scenario leads to."""
    now = {k: v for k, v in page.items() if k.startswith("conf/")}
    past = {k.removeprefix("before/"): v for k, v in page.items() if k.startswith("before/")}
    recorded = yaml.safe_load(page.get("recorded.yaml", "").replace("ROOT", str(root))) or {}
    seen = yaml.safe_load(page.get("world.yaml", "").replace("ROOT", str(root))) or {}
    records: dict[Address, Record] = {}
    if past or "before" in page:
        old = Scenario(written(root, {**now, **past} if "before" in page else past))
        object.__setattr__(old, "given", {})
        for address in old.declarations:
            want = old.wanted(address)
            given = recorded.get(address, {})
            facts = given.get("facts", want.facts)
            record = new_record(old, address, want, facts, str(given.get("content", "c0")), 1, {})
            keep = {k: v for k, v in given.items() if k in ("adopted", "protect", "pending", "profiles")}
            records[address] = replace(record, at=0.0, profiles="-", **keep)
        for path in (root / "conf").rglob("*.yaml"):
            path.unlink()
    lab = Scenario(written(root, now))
    object.__setattr__(lab, "given", records)
    world = MemoryWorld(seen.get("files"), seen.get("answers"))
    by_facts = {k: v for k, v in seen.items() if k not in ("files", "answers")}

    def observe(address: Address, want: Wanted | None, record: Record | None) -> Observation:
        if address in by_facts:
            facts = by_facts[address]
            if isinstance(facts, dict) and "unknown" in facts:
                return Observation(unknown=facts["unknown"])
            return Observation(facts, facts)
        if "files" not in seen and "answers" not in seen:
            return Observation(record.facts, record.facts) if record else Observation()
        try:
            new = want.declaration.observe(world, lab.context(address)) if want else None
            old_facts = None
            if record:
                declaration = lab.revive(record)
                old_facts = declaration.observe(world, lab.declared.context_for(record.address, declaration))
            return Observation(new, old_facts)
        except Unknown as e:
            return Observation(unknown=str(e))

    wanted = {a: lab.wanted(a) for a in lab.declarations}
    plan = make(
        Header(lab="studio", generation=len(records) and 1),
        wanted,
        lab.declared.needs,
        records,
        observe,
        moved=moves(lab, wanted),
        cost=lambda c: cost(lab, c),
    )
    protected = {a for a, d in lab.declarations.items() if d.protect}
    refused = guards.refusals(plan, records, protected)
    return replace(plan, problems=(*plan.problems, *refused)), lab


def steps_of(plan: Plan, lab: Lab) -> list[str]:
    """The steps of every change of a plan, a line each."""
    lines = []
    for change in plan.todo:
        if change.release or change.action in (Action.ADOPT, Action.MOVE):
            continue
        if change.action is Action.DESTROY:
            declaration = lab.revive(lab.records[change.address])
            context = lab.declared.context_for(change.address, declaration)
        else:
            declaration, context = lab.declarations[change.address], lab.context(change.address)
        lines += [f"{change.address}: {s.describe(10_000)}" for s in declaration.steps(change, context)]
    return lines


@pytest.mark.parametrize("path", sorted(HERE.rglob("*.txt")), ids=lambda p: str(p.relative_to(HERE))[:-4])
def test_scenario(path: Path, request: pytest.FixtureRequest) -> None:
    """What the page says follows from what the page gives. Proves DC-2, DC-4 for decisions."""
    tmp_path = Path(tempfile.mkdtemp(prefix="lab", dir="/tmp"))
    request.addfinalizer(lambda: shutil.rmtree(tmp_path))
    page = sections(path.read_text())
    assert page[""].strip().endswith("."), "a scenario begins with a sentence"
    try:
        plan, lab = planned(page, tmp_path)
        shown, steps = text.render(plan), "\n".join(steps_of(plan, lab))
    except Problems as e:
        shown, steps = "\n".join(map(str, e.problems)), ""
    shown = shown.replace(str(tmp_path), "ROOT")
    steps = re.sub(r"\b[0-9a-f]{32}\b", "DIGEST", steps.replace(str(tmp_path), "ROOT"))
    if request.config.getoption("--accept"):
        body = "".join(f"-- {k} --\n{v}" for k, v in page.items() if k not in ("", "plan", "steps"))
        path.write_text(f"{page['']}{body.rstrip()}\n\n-- plan --\n{shown}\n\n-- steps --\n{steps}\n")
        return
    assert shown.strip() == page.get("plan", "").strip()
    assert steps.strip() == page.get("steps", "").strip()
