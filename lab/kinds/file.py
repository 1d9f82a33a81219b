"""file: a managed small file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from string import Template
from typing import Any, ClassVar

from pydantic import Field, model_validator

from lab.core.change import Action, Change
from lab.core.facts import Facts
from lab.core.forecast import Estimate, Forecast
from lab.core.kind import Context, Declaration
from lab.core.step import Remove, Step, Write
from lab.core.world import World


class File(Declaration):
    """A small file with declared content, mode and owner.

        file/motd.yaml:   path: ~/lab/MOTD   content: "Be kind to the GPU.\\n"   mode: "0644"
        file/conf.yaml:   path: ~/lab/app.toml   template: templates/app.toml   values: {port: 8080}

    Destroying it removes the file; the folders it lies in stay.
    """

    kind: ClassVar[str] = "file"
    fixed: ClassVar[frozenset[str]] = frozenset({"path"})

    path: str = Field(min_length=1)
    """Where the file shall be; `~` is the home, a relative path starts at the lab's repository."""
    content: str | None = None
    """The text of the file."""
    template: str = ""
    """A file of the repository whose `$name` and `${name}` are replaced by `values`; `$$` is a dollar sign."""
    values: Mapping[str, str | int | float | bool] = {}
    """What the template's names stand for."""
    encoding: str = Field("utf-8", pattern="^(utf-8|base64)$")
    """`utf-8`, or `base64` for content that is not text."""
    mode: str = Field("0644", pattern="^0?[0-7]{3,4}$")
    """Permission bits, octal, quoted."""
    owner: str = ""
    """The user that owns it; empty leaves it to whoever applies."""
    group: str = ""
    """The group that owns it; empty leaves it."""

    @model_validator(mode="after")
    def _one_source(self) -> File:
        if (self.content is None) == (not self.template):
            raise ValueError("give either `content` or `template`")
        return self

    def contents(self, context: Context) -> Facts:
        return {"template": context.content(context.path(self.template))} if self.template else {}

    def check(self, context: Context) -> Iterator[str | tuple[str, str, str]]:
        if not self.template:
            if self.encoding == "base64":
                try:
                    base64.b64decode(self.content or "", validate=True)
                except ValueError:
                    yield "content is not base64", "content", "encode it, or set `encoding: utf-8`"
            return
        text = context.text(context.path(self.template))
        if text is None:
            yield f"the template {self.template} is not there", "template", "make it, or name another"
            return
        try:
            Template(text).substitute(self.values)
        except KeyError as e:
            yield f"the template uses ${e.args[0]}, which `values` does not give", "values", f"add `{e.args[0]}:`"
        except ValueError as e:
            yield f"the template is not valid: {e}", "template", "write a lone dollar sign as `$$`"

    def claims(self, context: Context) -> Iterable[str]:
        return (f"the path {context.path(self.path)}",)

    def text(self, context: Context) -> str:
        """The declared content, in the declared encoding. Pure."""
        if not self.template:
            return self.content or ""
        return Template(context.text(context.path(self.template)) or "").safe_substitute(self.values)

    def wanted(self, context: Context) -> Facts:
        text = self.text(context)
        data = base64.b64decode(text) if self.encoding == "base64" else text.encode()
        facts: dict[str, Any] = {
            "path": context.path(self.path),
            "content": hashlib.sha256(data).hexdigest(),
            "mode": f"{int(self.mode, 8):04o}",
        }
        if self.owner:
            facts["owner"] = self.owner
        if self.group:
            facts["group"] = self.group
        return facts

    def observe(self, world: World, context: Context) -> Facts | None:
        path = context.path(self.path)
        stat = world.stat(path)
        if stat is None:
            return None
        facts: dict[str, Any] = {"path": path, "mode": f"{stat.mode:04o}"}
        if stat.type == "file":
            facts["content"] = world.sha256(path)
        else:
            facts["content"] = f"a {stat.type}"
        if self.owner:
            facts["owner"] = world.ask("user", uid=stat.uid)
        if self.group:
            facts["group"] = world.ask("group", gid=stat.gid)
        return facts

    def steps(self, change: Change, context: Context) -> Iterator[Step]:
        path = context.path(self.path)
        if change.action is Action.DESTROY:
            yield Remove(path)
            return
        if change.recorded and change.recorded.get("path") not in (None, path):
            yield Remove(str(change.recorded["path"]))
        yield Write(path, self.text(context), int(self.mode, 8), self.owner, self.group, self.encoding)

    def forecast(self, change: Change, context: Context) -> Forecast:
        return Forecast(disk=Estimate.exact(len(self.text(context).encode()), "content"))
