"""Applying one declaration without an engine: lock, observe, perform, observe again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lab.core.change import Action, Change
from lab.core.facts import differences
from lab.kinds.model import Model
from tests.models.doubles import Context, Stage, World, perform


def lock(model: Model, context: Context, tmp_path: Path, **stage: Any) -> dict[str, Any]:
    """The lock, put into the context too."""
    step = model.resolve(context)
    assert step is not None
    context.lock = dict(perform(step, Stage(tmp_path, Path(context.store), context.address, **stage)))
    return context.lock


def apply(model: Model, context: Context, tmp_path: Path, action: Action = Action.CREATE, **stage: Any) -> Any:
    """Observes, performs the steps, observes again; what is wanted is then so."""
    recorded = context.facts.get(context.address)
    observed = model.observe(World(), context)
    change = Change(context.address, action, recorded=recorded, observed=observed)
    for step in model.steps(change, context):
        perform(step, Stage(tmp_path, Path(context.store), context.address, **stage))
    found = model.observe(World(), context)
    if action is not Action.DESTROY:
        assert found is not None
        assert differences(found, model.wanted(context), partial=True) == ()
        context.facts[context.address] = found
    return found
