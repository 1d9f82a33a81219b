"""Registering: what an experiment says of its output in the model registry: name, aliases, stage, who approved it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from lab.core.block import Block
from lab.core.facts import Facts

Text = Annotated[str, StringConstraints(min_length=1)]


class Approval(Block):
    """Somebody's word that this content may go to production; of other content it says nothing."""

    by: Text
    """Who approves."""
    role: Text
    """As what: a role of `lab.approvers`."""
    digest: str = Field(pattern="^[0-9a-f]{64}$")
    """The sha256 of the output that was reviewed, as `lab registry show` tells it."""


class Registered(Block):
    """An output as a version in the model registry."""

    name: str = ""
    """The registered model; by default the experiment's name."""
    output: str = ""
    """Which output; by default the first."""
    aliases: tuple[Text, ...] = ()
    """Aliases that point to the version in force."""
    stage: Literal["", "development", "staging", "production", "archived"] = ""
    """Where the version in force stands; `production` needs `approved`."""
    approved: Approval | None = None
    """`{by, role, digest}`: reviewed in git like all that is declared here."""

    def rule(self, experiment: str, outputs: Sequence[str]) -> Facts:
        """The same with its defaults filled in, as plain values; MLflow keeps the alias `latest` itself. Pure."""
        output = self.output or next(iter(outputs), "")
        aliases = sorted(a for a in self.aliases if a != "latest")
        return {**self.model_dump(), "name": self.name or experiment, "output": output, "aliases": aliases}


def facts(rule: Facts) -> dict[str, Any]:
    """What shall be true in the registry. Pure."""
    approved = signed(rule["approved"]) if rule["stage"] == "production" else ""
    return _told(rule, rule["aliases"], rule["stage"], approved)


def seen(rule: Facts, version: Mapping[str, Any]) -> dict[str, Any]:
    """What is true there of the version with the output's content, as far as the rule names it. Pure."""
    aliases = sorted(set(rule["aliases"]).intersection(version["aliases"]))
    return _told(rule, aliases, version["stage"], version["approved"])


def _told(rule: Facts, aliases: Sequence[str], stage: str, approved: str) -> dict[str, Any]:
    return {"name": rule["name"], "aliases": list(aliases), "stage": stage or "none", "approved": approved or "nobody"}


def signed(approval: Mapping[str, Any] | None) -> str:
    """`ann (maintainer)`; empty where nobody approved. Pure."""
    return f"{approval['by']} ({approval['role']})" if approval else ""


def complaints(
    rule: Facts, approvers: Mapping[str, Sequence[str]], made: str, manual: bool
) -> Iterator[tuple[str, str, str]]:
    """Why this version may not stand there: summary, field, what to do. `made` is its content, if known. Pure."""
    if manual and rule["stage"]:
        do = "use `when: missing`, or leave `stage` out"
        yield "a stage is set by `lab apply`, which leaves a manual experiment alone", "register", do
    if rule["stage"] != "production":
        return
    name, roles, approval = rule["name"], " or ".join(sorted(approvers)), rule["approved"]
    if not roles:
        yield f"nobody may approve {name} for production", "register", "declare `lab.approvers: {maintainer: [NAME]}`"
    elif approval is None:
        approved = f"approved: {{by: NAME, role: ROLE, digest: {made or '…'}}}"
        do = f"after review (`lab registry show {name}`) commit `{approved}`"
        yield f"{name} needs an approval by a {roles} to be in production", "register", do
    elif approval["role"] not in approvers:
        yield f"the role {approval['role']} may not approve {name} for production", "register", f"ask a {roles}"
    elif approval["by"] not in approvers[approval["role"]]:
        who = ", ".join(approvers[approval["role"]])
        yield f"{approval['by']} is no {approval['role']} and may not approve {name}", "register", f"ask {who}"
    elif made and approval["digest"] != made:
        do = f"have a {roles} review it and commit `digest: {made}`, or declare `stage: staging`"
        yield f"what was approved of {name} is not the version in force", "register", do
