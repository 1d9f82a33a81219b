"""Markdown: a plan for a pull request."""

from __future__ import annotations

from lab.plan.decide import told
from lab.plan.plan import Plan
from lab.plan.text import cost, heading, nothing, totals


def render(plan: Plan) -> str:
    """The plan as GitHub-flavoured Markdown, without a final newline. Pure."""
    lines = ["## lab plan", "", heading(plan.header), ""]
    if not plan.todo:
        lines.append(nothing(plan))
    else:
        lines += ["| | resource | why | cost |", "|---|---|---|---|"]
        for change in plan.todo:
            row = (change.word, f"`{change.address}`", change.reason, " · ".join(cost(change.forecast)))
            lines.append("| " + " | ".join(_cell(c) for c in row) + " |")
        detailed = [c for c in plan.todo if c.fields or c.drift]
        if detailed:
            lines += ["", "<details><summary>Fields</summary>", "", "```diff"]
            for change in detailed:
                lines.append(f"@@ {change.address} @@")
                lines += [f"! {told(d)}" for d in change.fields]
                lines += [f"# drift {told(d)}" for d in change.drift]
            lines += ["```", "", "</details>"]
        lines += ["", totals(plan)]
    if plan.problems:
        lines += ["", "### Problems", ""]
        for p in plan.problems:
            lines.append(f"- **{p.summary}**" + (f" ({p.where})" if p.file else ""))
            lines += [f"  - {k}: {v}" for k, v in (("why", p.why), ("do", p.do)) if v]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
