"""Sweep: one coordinator carries a study to its end. What it knows is in the study and in the trials' folders, so
it may be killed anywhere and started again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lab.core.problem import Problems, problem
from lab.core.rules import Rule
from lab.core.space import nested
from lab.core.steps_sweeps import Search
from lab.runs.folder import RunFolder, parse
from lab.runs.sweep_judge import Verdict, flat, judge, thin
from lab.runs.sweep_ports import STARTING, Ended, Executor, Proposed, Tuner

OUTSIDE = (1, 2, 9, 15)
"""Signals by which others end a process (HUP, INT, KILL, TERM): such a trial is lost, not failed."""
_NOTED = ("run", "reused", "seconds", "metrics", "reason")
LOST = 20
"""How often a lost trial is run again before it counts as failed."""


@dataclass
class Live:
    """A trial that runs now."""

    trial: Proposed
    read: int = 0
    """Bytes of its metrics already reported."""
    seen: dict[int, float] = field(default_factory=dict)
    begun: bool = False
    """Whether it was let in: it waits for no memory any more."""
    waits: str = ""
    """What it was last said to wait for."""
    pruning: bool = False
    notes: dict[str, Any] = field(default_factory=dict)


class Sweep:
    """The loop of one study: adopt, tell, ask, start, until the trials asked for have ended."""

    def __init__(
        self,
        step: Search,
        tuner: Tuner,
        executor: Executor,
        *,
        exhaustive: int | None = None,
        queued: bool = False,
        unchanged: Callable[[], str] = lambda: "",
        reusable: Callable[[Mapping[str, Any]], RunFolder | None] | None = None,
        check: Callable[[], None] = lambda: None,
        tell: Callable[[float, float | None], None] = lambda done, total: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.step, self.tuner, self.executor = step, tuner, executor
        self.points = exhaustive
        self.queued = queued
        """Whether trials need so much memory that they stand in the host's queue."""
        self.unchanged, self.reusable = unchanged, reusable
        self.check, self.tell, self.say = check, tell, say
        self.metrics = tuple(step.objective)
        self.signs = [-1.0 if goal == "max" else 1.0 for goal in step.objective.values()]
        self.rules = [Rule(text) for text in step.constraints]
        self.ended: dict[int, Ended] = {}
        self.live: dict[int, Live] = {}
        self.drawn = 0
        self.over = ""
        """Why no further trial begins; empty while some may."""
        self.began = time.monotonic()

    # --- the loop -------------------------------------------------------------------------------------------------

    def run(self) -> str:
        """Why it ended: `finished`, or the rule that ended it. Raises Problems, Cancelled."""
        self.ended = {t.number: t for t in self.tuner.ended()}
        self.drawn = self.tuner.drawn()
        self._adopt()
        since = time.monotonic()
        while True:
            moved = self._collect()
            moved |= self._fill()
            if not self.live and self.over:
                return self.over
            self.tell(self.counted(), self.target())
            try:
                self.check()
            except BaseException:
                if self.live:
                    self.say(f"{len(self.live)} trials go on by themselves; the next start adopts them")
                raise
            if moved:
                since = time.monotonic()
                continue
            # Short trials are looked at often, long ones seldom: never later than a twentieth of what passed.
            time.sleep(min(max((time.monotonic() - since) / 20, 0.001), 0.05))

    def target(self) -> int | None:
        """How many trials shall have ended."""
        if self.points is None:
            return self.step.trials
        return min(self.points, self.step.trials or self.points)

    def counted(self) -> int:
        """Trials that have ended and count: all but those outside the constraints."""
        return sum(1 for t in self.ended.values() if t.state != "infeasible")

    def _adopt(self) -> None:
        """Trials begun earlier: living ones are watched, finished ones told, dead ones run again."""
        adopted = again = 0
        for trial in self.tuner.begun():
            folder = self.executor.folder(trial.number)
            lives = folder.held() or bool(folder.result)
            if not lives:
                again += 1
                self._start(trial, again=folder.path.exists())
            else:
                adopted += 1
                self.live[trial.number] = Live(trial, pruning="pruning" in trial.notes, notes=dict(trial.notes))
        if self.ended or adopted or again:
            self.say(
                f"{self.step.study} goes on: {self.counted()} trials have ended, {adopted} adopted, {again} run again"
            )

    # --- trials that run ------------------------------------------------------------------------------------------

    def _collect(self) -> bool:
        moved = False
        for number, live in list(self.live.items()):
            result = self.executor.poll(number)
            news = self._report(number, live) if self.step.pruner or result is not None else False
            if result is None:
                if news and not live.pruning and self.tuner.hopeless(number):
                    live.pruning = True
                    self.tuner.note(number, "pruning", max(live.seen))
                    self.executor.stop(number)
                continue
            moved = True
            if self._lost(live, result):
                continue
            del self.live[number]
            self._judge(live, result)
        return moved

    def _report(self, number: int, live: Live) -> bool:
        """What the trial has logged since is read, and reported to the pruner; returns whether there was any."""
        name, before, news = self.metrics[0], live.read, dict[int, float]()
        try:
            with open(self.executor.folder(number) / "metrics.jsonl", "rb") as f:
                f.seek(live.read)
                for line in f:
                    if not line.endswith(b"\n"):
                        break
                    live.read += len(line)
                    point = parse(line)
                    if point is None or name not in point[2]:
                        continue
                    news[point[0]] = point[2][name]
        except FileNotFoundError:
            return False
        live.seen |= news
        if news and self.step.pruner and len(self.metrics) == 1:
            self.tuner.report(number, news)
        return live.read > before

    def _lost(self, live: Live, result: Mapping[str, Any]) -> bool:
        """Whether the trial is gone through no fault of its own; then it runs again, in place."""
        state, number = result.get("state"), live.trial.number
        if live.pruning:
            return False
        gone = state in ("lost", "interrupted") or (state == "killed" and result.get("signal") in OUTSIDE)
        limit = LOST if gone else 1 if state == "stopped" else 0
        times = int(live.trial.notes.get("lost", 0))
        if times >= limit:
            return False
        self.tuner.note(number, "lost", times + 1)
        trial = Proposed(number, live.trial.params, {**live.trial.notes, "lost": times + 1})
        self.say(f"trial {number} was lost ({result.get('reason') or state}); it runs again with the same parameters")
        self._start(trial, again=True)
        return True

    def _start(self, trial: Proposed, *, again: bool = False) -> None:
        self.executor.start(trial.number, nested({}, trial.params), again=again)
        self.live[trial.number] = Live(trial, notes=dict(trial.notes))

    # --- how a trial ended ----------------------------------------------------------------------------------------

    def _judge(self, live: Live, result: Mapping[str, Any]) -> None:
        """The study is told how the trial ended, all at once: every write to a study waits for the disk."""
        number, finished = live.trial.number, result.get("state") == "finished"
        folder = self.executor.folder(number)
        seconds = float(result.get("seconds") or 0)
        live.notes |= {"run": folder.id, "seconds": round(seconds, 3)}
        if live.pruning and not finished:
            found = Verdict("pruned")
        else:
            found = judge(self.step, self.rules, folder, result, self.all(live.trial.params))
        if found.reason:
            live.notes["reason"] = found.reason[-500:]
        if found.others:
            live.notes["metrics"] = dict(found.others)
        notes = {"lab": {k: v for k, v in live.notes.items() if k in _NOTED}}
        points = thin(live.seen) if len(self.metrics) == 1 and not self.step.pruner else {}
        self.tuner.tell(number, found.state, found.values, notes=notes, points=points, excess=found.excess)
        self.ended[number] = Ended(
            number,
            found.state,
            live.trial.params,
            found.values,
            live.notes,
            found.feasible,
            seconds,
            live.seen,
            time.time(),
        )
        shown = ", ".join(f"{n} {v:.6g}" for n, v in zip(self.metrics, found.values, strict=False)) or found.reason
        self.say(f"trial {number} {found.state}{': ' + shown if shown else ''}")
        if found.state == "failed":
            self._refuse_hopeless(found.reason)

    def all(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Every parameter of a trial by its dotted name: the experiment's own, and what was drawn. Pure."""
        return {**flat(self.step.spec.get("params") or {}), **params}

    def _refuse_hopeless(self, reason: str) -> None:
        """A sweep whose trials all fail is ended early, with the reason of the last."""
        if self.step.on_failure == "stop" and not self.over:
            self.over = f"a trial failed: {reason}"
            self.problem = problem(f"{self.step.study} stopped: a trial failed", why=reason, do="mend the experiment")
        counted = [t for t in self.ended.values() if t.state != "infeasible"]
        first = max(3, self.step.parallel)
        if len(counted) >= first and all(t.state == "failed" for t in counted) and not self.over:
            self.over = f"all of the first {len(counted)} trials failed"
            self.problem = problem(
                f"{self.step.study} was ended: its first {len(counted)} trials all failed",
                why=reason,
                do=f"see `lab logs {self.executor.folder(max(self.ended)).id}`, mend the experiment, and sweep again",
            )

    problem: Problems | None = None

    # --- trials that begin ----------------------------------------------------------------------------------------

    def _fill(self) -> bool:
        moved = False
        while not self.over and len(self.live) < self.step.parallel:
            if why := self._enough():
                self.over = why
                break
            target = self.target()
            if target is not None and self.counted() + len(self.live) >= target:
                break
            if self.queued and self._queued():
                break
            trial = self._ask()
            if trial is None:
                break
            moved = True
            if found := self.reusable(self.all(trial.params)) if self.reusable else None:
                self._judge_reused(trial, found)
                continue
            self._start(trial)
        return moved

    def _queued(self) -> bool:
        """Whether a trial has not been let in yet: only one of a sweep stands in the host's queue at a time."""
        for number, live in self.live.items():
            if live.begun:
                continue
            why = self.executor.waits(number)
            live.begun = not why
            if why and why != live.waits and why != STARTING:
                live.waits = why
                self.say(f"trial {number} waits: {why}")
            if why:
                return True
        return False

    def _ask(self) -> Proposed | None:
        """The next point inside the constraints that can be told before it is run."""
        for _ in range(500):
            if self.points is not None and self.drawn >= self.points:
                return None
            if changed := self.unchanged():
                self.over = changed
                self.problem = problem(
                    f"{self.step.study} stopped: {changed}",
                    why="its trials would not be comparable; those that have ended are kept",
                    do="put the code back to go on with this study; as it is now it is another one, see `lab plan`",
                )
                return None
            trial = self.tuner.ask()
            if trial is None:
                return None
            self.drawn += 1
            values = self.all(trial.params)
            known = [r for r in self.rules if r.names <= values.keys()]
            excess = {r.text: r.excess(values) for r in known}
            if all(v <= 0 for v in excess.values()):
                return trial
            self.tuner.tell(trial.number, "infeasible", excess=excess)
            self.ended[trial.number] = Ended(trial.number, "infeasible", trial.params, feasible=False)
        raise problem(
            f"{self.step.study}: 500 points in a row broke a constraint",
            why="; ".join(self.step.constraints),
            do="widen the space or the constraints",
        )

    def _judge_reused(self, trial: Proposed, folder: RunFolder) -> None:
        live = Live(trial, notes={**trial.notes, "reused": folder.id})
        executor, self.executor = self.executor, _Finished(folder, self.executor)
        try:
            self._report(trial.number, live)
            self._judge(live, {**folder.result, "seconds": 0})
        finally:
            self.executor = executor

    def _enough(self) -> str:
        """Why no further trial begins, by the declared rules; empty while one may."""
        target, rules = self.target(), self.step.stop
        if target is not None and self.counted() >= target:
            return "finished"
        if self.points is not None and self.drawn >= self.points and not self.live:
            return "finished"
        if self.step.timeout and time.monotonic() - self.began > self.step.timeout:
            return f"its time of {self.step.timeout:g} s is over"
        if self.step.budget and (spent := sum(t.seconds for t in self.ended.values())) >= self.step.budget:
            return f"its budget is spent: {spent:.0f} s of {self.step.budget:g} s of trials"
        if not rules or len(self.signs) != 1:
            return ""
        done = sorted((t for t in self.ended.values() if t.values and t.state == "complete"), key=lambda t: t.ended)
        scores = [self.signs[0] * t.values[0] for t in done if t.feasible]
        target_value = rules.get("target")
        if scores and target_value is not None and min(scores) <= self.signs[0] * float(target_value):
            return f"{self.metrics[0]} reached {target_value}"
        patience = rules.get("patience")
        if scores and patience and len(scores) - 1 - scores.index(min(scores)) >= int(patience):
            return f"{patience} trials did not improve on the best"
        return ""


class _Finished:
    """The folder of a finished run in the place of a trial's."""

    def __init__(self, folder: RunFolder, inner: Executor) -> None:
        self._folder, self._inner = folder, inner

    def folder(self, number: int) -> RunFolder:
        return self._folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
