"""apply: makes the machine what is declared, one durable record per finished resource."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lab import adapters
from lab.adapters import git
from lab.adapters.secrets import resolve
from lab.app import state
from lab.app.activity import projects
from lab.app.begun import leftovers
from lab.app.guest import note, refuse_guests
from lab.app.lab import Lab, read_machine
from lab.app.plan import new_record
from lab.app.plan import plan as make_plan
from lab.app.reading import Reading
from lab.apply.carry import Capacity, Carrier, Deed
from lab.apply.events import Event
from lab.apply.results import Outcome, Result
from lab.apply.stage import Work
from lab.apply.walk import Walk
from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.facts import Facts
from lab.core.problem import Problem, Problems, problem
from lab.core.record import Record
from lab.core.step import Step
from lab.declare.stage import asked
from lab.ledger import generations
from lab.ledger.ledger import Ledger
from lab.plan.plan import FORMAT, Plan
from lab.runs.folder import tidy


@dataclass(frozen=True, slots=True)
class Applied:
    """What an apply did."""

    plan: Plan
    generation: int
    results: Mapping[Address, Result]
    interrupted: bool = False

    @property
    def failed(self) -> bool:
        """Whether anything is left undone."""
        return any(r.outcome is not Outcome.DONE for r in self.results.values())

    def count(self, outcome: Outcome) -> int:
        """How many changes ended so."""
        return sum(1 for r in self.results.values() if r.outcome is outcome)


Approve = Callable[[Plan], bool]
Started = Callable[[Walk], None]


def apply(
    lab: Lab,
    only: Sequence[str] = (),
    exclude: Sequence[str] = (),
    *,
    saved: Path | None = None,
    verb: str = "apply",
    without: Sequence[str] = (),
    allow_destroy: bool = False,
    approve: Approve = lambda plan: True,
    started: Started = lambda walk: None,
) -> Applied | None:
    """The lab is as declared, as far as could be done; None where `approve` said no.

    Raises Problems where nothing may be done: another writer, a stale saved plan, a refused plan.
    """
    refuse_guests()
    with lab.alone(verb) as told:
        if told:
            lab.tell(Event("say", text=told))
        wanted = read_saved(lab, saved) if saved else None
        if wanted:
            only, exclude = wanted["only"], wanted["exclude"]
        with closing(Ledger.write(lab.kept, lab.id, lab.stamps)) as ledger:
            found = make_plan(lab, only, exclude, verb=verb, without=without, allow_destroy=allow_destroy)
            if wanted and wanted["digest"] != found.digest():
                raise _stale(wanted, found)
            if found.problems:
                raise Problems(*found.problems)
            _policy(lab)
            _leave_to_others(lab, ledger)
            if not found.todo:
                state.tidy(lab)
                _sweep(lab)
                ledger.stamp()  # an apply killed after its last record had not come to it
                return Applied(found, found.header.generation, {})
            if not approve(found):
                return None
            return _carry_out(lab, ledger, found, verb, without, started)


def _carry_out(lab: Lab, ledger: Ledger, found: Plan, verb: str, without: Sequence[str], started: Started) -> Applied:
    if any(c.address.kind == "dataset" for c in found.todo):
        from lab.app import gc

        gc.claim(lab, lab.store)
    origin = generations.Origin(
        found.header.revision, git.patch(lab.root) if found.header.dirty else "", lab.profile, lab.overrides
    )
    declared = {
        a: d.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        for a, d in lab.declarations.items()
        if a not in set(without)
    }
    number = generations.begin(ledger, origin, verb, declared)
    contents = {a: r.content for a, r in lab.records.items()}
    reading = Reading(lab)
    carrier = Carrier(
        {c.address: _deed(lab, c, number, contents, reading) for c in found.todo},
        ledger,
        number,
        lab.places,
        adapters.performer,
        resolve,
        lab.world().note,
        lab.tell,
        Capacity({**Capacity().limits, **((lab.head.get("apply") or {}).get("capacities") or {})}),
        admit=partial(_admit, lab),
        contents=contents,
    )
    walk = Walk(carrier)
    started(walk)
    began = time.time()
    results = walk.run()
    interrupted = walk.stop.is_set() or walk.cancel.is_set()
    failed = any(r.outcome is not Outcome.DONE for r in results.values())
    outcome = "interrupted" if interrupted else "failed" if failed else "done"
    generations.finish(ledger, number, Counter(c.word for c in found.changes), outcome)
    ledger.stamp()
    ledger.fold()
    state.keep_copy(lab)
    about = projects(lab, [c.address for c in found.todo])
    note(lab, f"lab {verb}", generation=number, commit=found.header.revision[:12], outcome=outcome, projects=about)
    lab.hashes.save()
    if not failed:
        _sweep(lab)
    if ran := [a.name for a, r in results.items() if a.kind == "experiment" and r.outcome is Outcome.DONE]:
        from lab.app.calibrate import learn_runs

        learn_runs(lab, ran, since=began)
    return Applied(found, number, results, interrupted)


def _sweep(lab: Lab) -> None:
    """What a killed apply left in the stores is gone, and what a killed supervisor left beside a result."""
    for address, record in lab.records.items():
        if address.kind == "experiment" and (run := record.facts.get("run")):
            tidy(lab.state / "runs" / str(run))
    if lab.store.is_dir():
        from lab.app import gc

        gc.tidy(lab)


def _leave_to_others(lab: Lab, ledger: Ledger) -> None:
    """What this profile declares no more, but another does, is that other's alone from now on."""
    mine = lab.profile or "-"
    left = [
        replace(r, profiles=" ".join(p for p in r.profiles.split() if p != mine))
        for a, r in lab.records.items()
        if a not in lab.declarations and mine in r.profiles.split() and r.profiles != mine
    ]
    if left:
        with ledger.transaction():
            ledger.put(left)


def _deed(lab: Lab, change: Change, generation: int, contents: Mapping[Address, str], reading: Reading) -> Deed:
    before = lab.records.get(change.moved_from or change.address)
    world = lab.world()
    if change.action is Action.DESTROY:
        assert before is not None

        def destroy() -> Sequence[Step]:
            if change.unknown:
                raise problem(f"{change.address} cannot be observed, so it is left alone", why=change.unknown)
            declaration = lab.revive(before)
            context = lab.declared.context_for(change.address, declaration)
            own = declaration.steps(change, context)
            return tuple(reading.steps(change, before, (*own, *leftovers(lab, change, before, declaration))))

        def gone() -> Facts | None:
            declaration = lab.revive(before)
            return declaration.observe(world, lab.declared.context_for(change.address, declaration))

        return Deed(change, destroy, gone, _never, (), before)
    want = lab.wanted(change.address)
    context = lab.context(change.address)
    adopted = change.action is Action.ADOPT and before is None
    if before is not None and change.action in (Action.ADOPT, Action.MOVE, Action.UPDATE):
        adopted = before.adopted

    def record(facts: Facts, content: str) -> Record:
        made = new_record(lab, change.address, want, facts, content, generation, contents, before, adopted=adopted)
        if facts and isinstance(lab.records, dict):
            # What follows in this apply asks its context what this became.
            lab.records[change.address] = made
        return made

    return Deed(
        change,
        lambda: tuple(
            reading.steps(
                change,
                before,
                (
                    *(() if change.action in (Action.ADOPT, Action.MOVE) else want.declaration.steps(change, context)),
                    *leftovers(lab, change, before, want.declaration),
                ),
            )
        ),
        lambda: want.declaration.observe(world, context),
        record,
        tuple(Address(a) for a in want.inputs["requires"]),
        replace(before, address=change.address) if before else None,
    )


def _never(facts: Facts, content: str) -> Record:
    raise AssertionError("a destroyed resource has no record")


def _policy(lab: Lab) -> None:
    here = read_machine().platform
    if lab.host.platform != here:
        raise problem(
            f"the lab is declared for {lab.host.name} ({lab.host.platform}), and this machine is {here}",
            why="plans may be made for any machine; only the machine itself can be changed",
            do="apply there (`lab apply --host NAME`), or say `host=auto`",
        )
    policy = lab.head.get("apply") or {}
    need = policy.get("require", "")
    if not need:
        return
    head = git.head(lab.root)
    if not head.revision:
        raise problem(f"`apply.require: {need}` needs a git repository", do="commit the lab first")
    if head.dirty:
        raise problem(
            "the working tree has uncommitted changes",
            why=f"conf/lab.yaml says `apply.require: {need}`",
            do="commit them",
        )
    if need == "merged" and not git.merged(lab.root):
        raise problem(
            f"commit {head.revision[:7]} is not merged",
            why="conf/lab.yaml says `apply.require: merged`",
            do="merge it first",
        )


def under_saved(lab: Lab, path: Path) -> Lab:
    """The lab under the overrides of a saved plan; a Problem where another stage was asked for."""
    opened = Lab(lab.root, tuple(_readable(path)["overrides"]), lab.tell)
    said = asked(lab.overrides)
    if said is not None and said != opened.stage:
        of = f"for stage {opened.stage}" if opened.stage else "for no stage"
        raise problem(f"{path} is a plan {of}, not for {said or 'none'}", do="leave `stage=` out")
    return opened


def read_saved(lab: Lab, path: Path) -> dict[str, Any]:
    """A saved plan, checked to be one and of this lab; Problems where it is not."""
    found = _readable(path)
    if found["lab_id"] != lab.id:
        raise problem(
            f"{path} is a plan for another lab", why=f"its id is {found['lab_id']}", do="use it in its own lab"
        )
    return found


def _readable(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        form, _, _, _ = (found["format"], found["lab_id"], found["digest"], found["changes"])
        lists = (found["only"], found["exclude"], found["overrides"])
        sound = all(isinstance(part, list) and all(isinstance(w, str) for w in part) for part in lists)
        if not sound or not isinstance(found["serial"], int):
            raise ValueError("not as Lab writes them")
        [(c["address"], c["action"], c["digest"], c["reason"]) for c in found["changes"]]
    except OSError as e:
        raise problem(
            f"the plan {path} cannot be read", why=e.strerror or "", do="make one with `lab plan --out FILE`"
        ) from e
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise problem(f"{path} is no saved plan", do="make one with `lab plan --out FILE`") from e
    if form != FORMAT:
        raise problem(f"{path} has plan format {form}, this Lab reads {FORMAT}", do="make a new one")
    checked: dict[str, Any] = found
    return checked


def _stale(saved: Mapping[str, Any], now: Plan) -> Problems:
    def essence(c: Mapping[str, Any]) -> tuple[Any, ...]:
        return (c["action"], c["digest"], c["reason"])

    before = {c["address"]: essence(c) for c in saved["changes"] if c["action"] != "none"}
    after = {c.address: essence(c.to_json()) for c in now.todo}
    differs = sorted(a for a in {*before, *after} if before.get(a) != after.get(Address(a)))
    why = f"since then {', '.join(differs[:3])} changed" if differs else "the machine changed since then"
    if saved["serial"] != now.header.serial and not differs:
        why = "the lab was applied since then"
    return Problems(Problem("the saved plan is stale", why=why, do="run `lab plan --out FILE` again and review it"))


@contextmanager
def _admit(lab: Lab, name: str, need: int, work: Work) -> Iterator[int]:
    """A step that needs much memory has its place in the host's queue, beside runs; what was overcommitted has none.

    It waits for what others were promised, not for what other programs hold: its forecast is that of its use as well.
    """
    from lab.adapters import admission, queue
    from lab.core.queueing import Asks

    total = lab.host.memory or 0
    if not admission.SMALL <= need <= total:
        yield 0
        return

    def say(why: str) -> None:
        work.say(f"waits: {why}")

    asks = Asks(owner=queue.owner_here())
    with admission.admit(lab.state, need, total, name, True, asks=asks, check=work.check, say=say, free=lambda: total):
        yield need
