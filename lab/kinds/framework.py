"""framework: an LLM framework that is installed and passes its smoke test."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.facts import Facts
from lab.core.frameworks import KNOWN
from lab.core.frameworks import Framework as Known
from lab.core.kind import Context, Declaration, RefTo
from lab.core.problem import did_you_mean
from lab.core.step import Remove, Step
from lab.core.steps_envs import TestFramework
from lab.core.world import World


class Framework(Declaration):
    """A framework that lives in an env, as a program of the host, or in Lab's own Python, and is known to work there.

        framework/langchain.yaml:  env: agents
        framework/ollama.yaml:     program: ollama
        framework/llama_cpp.yaml:  {}

    Applying it runs its smoke test (import, load, generate, serve, as far as it has them) and keeps the result; it is
    tested again when its version changes. Destroying it forgets the result: envs and programs are not its own.
    """

    kind: ClassVar[str] = "framework"

    is_: str = ""
    """Which framework: llama_cpp, mlx, mlx_lm, pytorch, transformers, ollama, langchain, …; by default its name."""
    env: Annotated[Address, RefTo("env")] | None = None
    """The env it lives in."""
    program: str = ""
    """The command or path of a framework that is a program."""
    smoke: str = ""
    """A shell line to test it by, instead of the test that comes with Lab; needed for frameworks Lab does not know."""

    def known(self, context: Context) -> Known | None:
        """What Lab knows of it; None where nothing. Pure."""
        return KNOWN.get(self.is_ or context.address.name)

    def check(self, context: Context) -> Iterator[str | tuple[str, str, str]]:
        name = self.is_ or context.address.name
        if self.env and self.program:
            yield "it lives in an env or is a program, not both", "program", "leave one of them out"
        if name not in KNOWN and not self.smoke:
            hint = did_you_mean(name, KNOWN)
            yield (
                f"Lab knows no framework `{name}`{hint}",
                "is_",
                f"set `is_:` to one of {', '.join(KNOWN)}, or give `smoke:`",
            )

    def result(self, context: Context) -> str:
        """Where the result of its last test is kept. Pure."""
        return f"{context.state}/frameworks/{context.address.name}.json"

    def where(self, context: Context) -> str:
        """`env.NAME`, `program PATH`, or `lab`. Pure."""
        known = self.known(context)
        program = self.program or (known.program if known and not self.env else "")
        return str(self.env) if self.env else f"program {program}" if program else "lab"

    def wanted(self, context: Context) -> Facts:
        return {"where": self.where(context), "works": True}

    def observe(self, world: World, context: Context) -> Facts | None:
        known = self.known(context)
        found = world.ask(
            "framework",
            result=self.result(context),
            distribution=known.distribution if known else "",
            program=self.where(context).removeprefix("program ") if self.where(context).startswith("program ") else "",
            link=self._link(context),
        )
        return None if found is None else {"where": self.where(context), **found}

    def _link(self, context: Context) -> str:
        if not self.env:
            return ""
        declared: Any = context.declaration(self.env)
        return str(declared.link(context.of(self.env)))

    def steps(self, change: Change, context: Context) -> Iterator[Step]:
        if change.action is Action.DESTROY:
            yield Remove(self.result(context), upto=context.state)
            return
        where = self.where(context)
        variables: Facts = {}
        if self.env:
            declared: Any = context.declaration(self.env)
            variables = dict(declared.spec(context.of(self.env)).get("variables", {}))
        yield TestFramework(
            context.address.name,
            self.is_ or context.address.name,
            self._link(context),
            where.removeprefix("program ") if where.startswith("program ") else "",
            variables,
            self.smoke,
        )
