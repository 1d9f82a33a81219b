"""frameworks: which LLM frameworks are installed, and whether they really work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from lab.adapters.frameworks import ENDPOINT, Result, identity, keep, probe
from lab.app.lab import Lab
from lab.core.address import Address
from lab.core.frameworks import KNOWN
from lab.core.problem import did_you_mean, problem
from lab.core.steps_envs import TestFramework


@dataclass(frozen=True, slots=True)
class Place:
    """A framework where it is installed; `name` is its declaration's, or `FRAMEWORK@PLACE` where none declares it."""

    name: str
    step: TestFramework
    distribution: str
    identity: str

    @property
    def where(self) -> str:
        """`lab`, `env NAME` or `program NAME`."""
        if self.step.link:
            return f"env {self.step.link.rpartition('/')[2]}"
        return f"program {self.step.program}" if self.step.program else "lab"


def listing(lab: Lab) -> list[Place]:
    """Every declared framework, then the known ones found in envs, as programs, or in Lab's own Python."""
    places: list[Place] = []
    seen: set[tuple[str, str, str]] = set()

    def add(name: str, step: TestFramework, distribution: str, *, found_only: bool) -> None:
        key = (step.framework, step.link, step.program)
        now = identity(distribution, step.program, step.link)
        known = KNOWN.get(step.framework)
        if found_only and known and known.also and not identity(known.also, "", step.link):
            return
        if key not in seen and (now or not found_only):
            seen.add(key)
            places.append(Place(name, step, distribution, now))

    for address, declaration in sorted(lab.declarations.items()):
        if address.kind == "framework":
            step = next(iter(declaration.steps(_create(address), lab.context(address))))
            assert isinstance(step, TestFramework)
            known = KNOWN.get(step.framework)
            add(address.name, step, known.distribution if known and not step.program else "", found_only=False)
    for address, declaration in sorted(lab.declarations.items()):
        if address.kind == "env":
            env: Any = declaration
            link = env.link(lab.context(address))
            for known in KNOWN.values():
                if known.distribution:
                    step = TestFramework(f"{known.name}@{address.name}", known.name, link)
                    add(step.name, step, known.distribution, found_only=True)
    for known in KNOWN.values():
        if known.distribution:
            add(
                f"{known.name}@lab", TestFramework(f"{known.name}@lab", known.name), known.distribution, found_only=True
            )
        if known.program:
            step = TestFramework(f"{known.name}@host", known.name, program=known.program)
            add(step.name, step, "", found_only=True)
    return places


def _create(address: Address) -> Any:
    from lab.core.change import Action, Change

    return Change(address, Action.CREATE)


@contextmanager
def served(lab: Lab, model: str) -> Iterator[dict[str, str] | None]:
    """Where smoke tests find that model, which a server answers for meanwhile; None for no model."""
    if not model:
        yield None
        return
    from lab.app.serve import serve

    with closing(serve(lab, model)) as server:
        server.ready()
        yield dict(zip(ENDPOINT, (server.url, server.name), strict=True))


def test(lab: Lab, names: Sequence[str], model: str) -> list[Result]:
    """The result of each framework's smoke test: those named (by declaration or framework), else every one there is.

    Those that talk to an endpoint talk to `model`, a model or quantization of the lab, where one is named.
    """
    places = listing(lab)
    known = {p.name for p in places} | {p.step.framework for p in places}
    for name in names:
        if name not in known:
            raise problem(
                f"no framework `{name}` is declared or installed{did_you_mean(name, known)}",
                do="`lab frameworks list` names them",
            )
    chosen = [p for p in places if not names or p.name in names or p.step.framework in names]
    out = []
    with served(lab, model) as endpoint:
        for place in chosen:
            address = f"framework.{place.name}"
            result = probe(place.step, lab.work(address).check, place.distribution, endpoint)
            keep(result, lab.state, place.name)
            out.append(result)
    return out


def page(lab: Lab, results: Sequence[Result]) -> str:
    """The matrix as a Markdown page: what was installed, tested and found to work on this host."""
    host = f"{lab.host.platform} ({lab.host.chip})" if lab.host.chip else lab.host.platform
    lines = [
        "# Frameworks",
        "",
        f"Made by `lab frameworks test --page`; every line is a smoke test that was run, on {host}.",
        "",
        "| framework | where | works | version | device | tested | on Apple Silicon |",
        "|---|---|---|---|---|---|---|",
    ]
    done = set()
    for r in results:
        known = KNOWN.get(r.framework)
        done.add(r.framework)
        works = "yes" if r.works else f"no: {r.step}: {r.why}"
        cells = (known.title if known else r.framework, r.where, works, r.version, r.device, ", ".join(r.tested),
                 known.apple if known else "")  # fmt: skip
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    for known in KNOWN.values():
        if known.name not in done:
            lines.append(f"| {known.title} | – | not installed here | | | | {known.apple} |")
    return "\n".join(lines) + "\n"
