"""A study in Optuna, as the port `Tuner`: ask, report, tell, and what it remembers. Private calls stay in this file."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lab.adapters.optuna_samplers import pruner, sampler
from lab.adapters.optuna_storage import quiet
from lab.core.problem import problem
from lab.core.space import Dimension, Space, kept, taken
from lab.core.steps_sweeps import Search
from lab.runs.sweep_ports import Ended, Proposed

_STATES = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL", "infeasible": "PRUNED"}
_KEY = "lab.space"


class OptunaStudy:
    """The study of a `Search`, in its storage."""

    def __init__(self, step: Search, storage: Any) -> None:
        self.optuna = quiet()
        self.space = Space.of(step.space)
        self.distributions = {d.name: distribution(d) for d in self.space.dimensions}
        directions = ["maximize" if goal == "max" else "minimize" for goal in step.objective.values()]
        self.study = self.optuna.create_study(
            study_name=step.study,
            storage=storage,
            directions=directions,
            load_if_exists=True,
            pruner=pruner(step.pruner),
        )
        self._guard(step)
        self.study.sampler = sampler(step.sampler, self.space, step.seed, self.drawn())
        self._trials: dict[int, Any] = {}
        self.together = getattr(getattr(storage, "_backend", None), "together", contextlib.nullcontext)
        """Within it, what is written to a journal reaches the disk together."""

    def _guard(self, step: Search) -> None:
        """A study made by others, or changed by hand, is not taken for ours."""
        kept, mine = self.study.user_attrs.get(_KEY), self.space.to_json()
        if kept is None and not self.study.get_trials(deepcopy=False):
            self.study.set_user_attr(_KEY, mine)
            self.study.set_user_attr("lab.sweep", step.name)
            self.study.set_metric_names(list(step.objective))
        elif kept != mine:
            raise problem(
                f"the study {step.study} in its storage is not the one declared",
                why="its search space was not written by this sweep, or was changed by hand",
                do="rename the sweep, or remove that study from the storage",
            )

    # --- the port -------------------------------------------------------------------------------------------------

    def drawn(self) -> int:
        """See `Tuner`."""
        return len(self.study.get_trials(deepcopy=False))

    def begun(self) -> list[Proposed]:
        """Trials in state RUNNING, each with all its parameters: those its asker had not drawn yet are drawn now."""
        found = []
        for frozen in self.study.get_trials(deepcopy=False, states=(self.optuna.trial.TrialState.RUNNING,)):
            trial = self.optuna.trial.Trial(self.study, frozen._trial_id)
            self._trials[frozen.number] = trial
            found.append(Proposed(frozen.number, self._draw(trial), dict(frozen.user_attrs)))
        return found

    def ended(self) -> list[Ended]:
        """See `Tuner`."""
        return [ended(t) for t in self.study.get_trials(deepcopy=False) if t.state.is_finished()]

    def ask(self) -> Proposed | None:
        """See `Tuner`; points queued by hand (`enqueue_trial`) come first."""
        trial = self.study.ask()
        self._trials[trial.number] = trial
        with self.together():
            return Proposed(trial.number, self._draw(trial))

    def report(self, number: int, points: Mapping[int, float]) -> None:
        """See `Tuner`."""
        trial = self._trial(number)
        with self.together():
            for step, value in points.items():
                if step not in trial._cached_frozen_trial.intermediate_values:
                    trial.report(value, step)

    def hopeless(self, number: int) -> bool:
        """See `Tuner`."""
        return len(self.study.directions) == 1 and bool(self._trial(number).should_prune())

    def note(self, number: int, name: str, value: Any) -> None:
        """See `Tuner`."""
        self._trial(number).set_user_attr(name, value)

    def tell(
        self,
        number: int,
        state: str,
        values: Sequence[float] = (),
        *,
        notes: Mapping[str, Any] = MappingProxyType({}),
        points: Mapping[int, float] = MappingProxyType({}),
        excess: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """See `Tuner`; in a journal it is one write."""
        told = getattr(self.optuna.trial.TrialState, _STATES[state])
        trial = self._trial(number)
        for rule, value in excess.items():
            trial.set_constraint(rule, value)  # samplers read it when the trial is told
        with self.together():
            self.report(number, points)
            for name, what in {**notes, **({"infeasible": True} if state == "infeasible" else {})}.items():
                trial.set_user_attr(name, what)
            self.study.tell(trial, list(values) if state == "complete" else None, told, skip_if_finished=True)
        self._trials.pop(number, None)

    # --- Optuna's own ---------------------------------------------------------------------------------------------

    def _draw(self, trial: Any) -> dict[str, Any]:
        return self.space.draw(lambda d: taken(trial._suggest(d.name, self.distributions[d.name])))

    def _trial(self, number: int) -> Any:
        if number not in self._trials:
            frozen = self.study.get_trials(deepcopy=False)[number]
            self._trials[number] = self.optuna.trial.Trial(self.study, frozen._trial_id)
        return self._trials[number]


def distribution(d: Dimension) -> Any:
    """The Optuna distribution of a dimension."""
    found = quiet().distributions
    if d.type == "choice":
        return found.CategoricalDistribution([kept(v) for v in d.choices])
    if d.type == "int":
        return found.IntDistribution(int(d.low), int(d.high), log=d.log, step=int(d.step or 1))
    return found.FloatDistribution(float(d.low), float(d.high), log=d.log, step=d.step)


def ended(frozen: Any) -> Ended:
    """A finished trial as plain values."""
    notes = {**frozen.user_attrs, **frozen.user_attrs.get("lab", {})}
    state = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}[frozen.state.name]
    rules = [v for k, v in frozen.system_attrs.items() if k.startswith("constraints:")]
    return Ended(
        frozen.number,
        "infeasible" if notes.get("infeasible") else state,
        {name: taken(value) for name, value in frozen.params.items()},
        tuple(frozen.values or ()) if state == "complete" else (),
        notes,
        all(v <= 0 for v in rules),
        float(notes.get("seconds", 0)),
        dict(frozen.intermediate_values),
        frozen.datetime_complete.timestamp() if frozen.datetime_complete else 0.0,
    )
