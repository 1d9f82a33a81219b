"""import: what already exists is recorded as ours to manage, and never rebuilt for it."""

from __future__ import annotations

from collections.abc import Sequence

from lab.app.lab import Lab
from lab.app.plan import new_record
from lab.app.state import writing
from lab.core.address import Address
from lab.core.facts import Facts, differences, digest
from lab.core.kind import Declaration
from lab.core.problem import Problem, Problems, Unknown, problem
from lab.ledger import generations
from lab.plan.decide import Wanted


def adopt(lab: Lab, addresses: Sequence[str] = (), *, everything: bool = False) -> list[Address]:
    """The named resources, or all that are declared, exist and are not recorded, are in the ledger; returns them.

    What is there may differ from what is declared: the next plan shows how.
    """
    if not addresses and not everything:
        raise problem("say what to import", do="give addresses, or `--all`")
    if everything:
        _begin_anew(lab)
    chosen = [Address(a) for a in addresses] or [a for a in lab.declarations if a not in lab.records]
    for address in chosen:
        lab.declaration(address)
    world = lab.world()
    found: list[tuple[Address, Wanted, Facts]] = []
    problems: list[Problem] = []
    for address in chosen:
        want = lab.wanted(address)
        try:
            facts = want.declaration.observe(world, lab.context(address))
            if facts is None:
                facts = _elsewhere(lab, address, want.declaration)
        except Problems as e:
            problems += () if everything else e.problems
            continue
        except Unknown as e:
            problems.append(Problem(f"{address} cannot be observed", why=str(e), address=address))
            continue
        if facts is None:
            if not everything:
                problems.append(Problem(f"{address} is not there", do="`lab apply` creates it", address=address))
            continue
        if want.declaration.derived and facts.get("digest") != want.digest:
            if not everything:
                problems.append(
                    Problem(
                        f"{address} was not made from what is declared",
                        why="its provenance names other inputs, or none",
                        do="set `overwrite: true` to make it anew",
                        address=address,
                    )
                )
            continue
        found.append((address, want, facts))
    if problems:
        raise Problems(*problems)
    with writing(lab, "import") as ledger:
        origin = generations.Origin(lab.header().revision, "", lab.profile, lab.overrides)
        declared = {
            a: d.model_dump(mode="json", by_alias=True, exclude_defaults=True) for a, d in lab.declarations.items()
        }
        number = generations.begin(ledger, origin, "import", declared)
        contents = {a: r.content for a, r in lab.records.items()} | {a: digest(f) for a, _, f in found}
        records = []
        for address, want, facts in found:
            record = new_record(lab, address, want, facts, contents[address], number, contents, adopted=True)
            if differences(facts, want.facts, partial=True):
                from dataclasses import replace

                record = replace(record, digest="", inputs_json="{}")
            records.append(record)
        with ledger.transaction():
            ledger.put(records)
            ledger.log(number, [(a, "adopt", "lab import", "", w.digest) for a, w, _ in found])
        generations.finish(ledger, number, {"adopt": len(found)}, "done")
    return [a for a, _, _ in found]


def _elsewhere(lab: Lab, address: Address, declaration: Declaration) -> Facts | None:
    """The facts of a resource that its kind finds on this machine in another place; None where it finds nothing."""
    steps = list(declaration.adoption(lab.context(address)))
    for step in steps:
        lab.perform(step, address)
    return declaration.observe(lab.world(), lab.context(address)) if steps else None


def _begin_anew(lab: Lab) -> None:
    """A ledger that is lost or damaged is moved aside, so that what is on the machine can be adopted into a new one."""
    try:
        _ = lab.records
        return
    except Problems as e:
        if "ledger is" not in e.problems[0].summary and "ledger cannot" not in e.problems[0].summary:
            raise
    lab.kept.aside()
    (lab.state / "stamp.json").unlink(missing_ok=True)
    for stamp in lab.stamps:
        stamp.unlink(missing_ok=True)
