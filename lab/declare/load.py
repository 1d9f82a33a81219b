"""Load: a lab's conf/ as declarations, or every problem it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lab import kinds
from lab.core.address import Address, is_name
from lab.core.host import Host
from lab.core.kind import Declaration
from lab.core.problem import Problem, Problems, did_you_mean
from lab.core.stages import GROUP, within
from lab.declare import overrides as operations
from lab.declare.blocks import Found, blocks, through_hydra
from lab.declare.cache import Cache, uncollected
from lab.declare.check import check
from lab.declare.conf import Conf, known_kinds, unused_group, walk
from lab.declare.context import Recorded, Surroundings
from lab.declare.declared import Declared
from lab.declare.head import Head, head
from lab.declare.marks import locate
from lab.declare.resolve import Blocks, Resolver
from lab.declare.select import select
from lab.declare.settings import Settings
from lab.declare.unresolved import Unresolved
from lab.declare.words import Fault, faults


def load(
    root: Path,
    overrides: Sequence[str] = (),
    *,
    profile: str | None = None,
    cache: Path | None = None,
    recorded: Recorded | None = None,
    machine: Callable[[], Host] | None = None,
    lives: Path | None = None,
    everything: bool = False,
) -> Declared:
    """What the lab at `root` declares; raises Problems with all that is wrong, each with file and line.

    `cache` is a folder for what can be computed again; `recorded` gives the ledger's facts by address and head;
    `machine` reads the host that `host: auto` stands for; `lives` is where the lab is, where `root` is an exported
    commit of it. With `everything`, files that the profile leaves out are checked for mistakes of their own. Reads.
    """
    at = Path(root).absolute()
    loading = Loading(at, overrides, profile, Cache(cache), recorded, machine or Host, lives or at)
    loading.everything = everything
    with uncollected():
        return loading.run()


def composed(root: Path, overrides: Sequence[str] = (), *, profile: str | None = None) -> dict[str, Any]:
    """The whole lab as plain, resolved values: the head's keys and, under each kind, the blocks of its resources.

    Equal to what `hydra.compose` makes of the same lab written with `kind@kind.name: name` entries. Raises Problems.
    Reads.
    """
    at = Path(root).absolute()
    return Loading(at, overrides, profile, Cache(None), None, Host, at).plain()


class Loading:
    """One load: the problems found so far, and the steps that find them."""

    def __init__(
        self,
        root: Path,
        overrides: Sequence[str],
        profile: str | None,
        cache: Cache,
        recorded: Recorded | None,
        machine: Callable[[], Host],
        lives: Path,
    ) -> None:
        self.root, self.overrides, self.profile, self.cache = root, overrides, profile, cache
        self.recorded, self.machine, self.lives = recorded, machine, lives.absolute()
        self.problems: list[Problem] = []
        self.conf: Conf = walk(root)
        self.files: dict[Address, str] = {}
        self.declarations: dict[Address, Declaration] = {}
        self.ladders: dict[Address, tuple[Address, ...]] = {}
        self.disabled: set[Address] = set()
        self.everything = False
        self.staged: tuple[str, ...] = ()
        self.rest: dict[str, Found] = {}
        self.broken: set[Address] = set()

    def run(self) -> Declared:
        """The steps, in order; raises at the end of the last one that can still find something."""
        self.problems += self.conf.problems
        composed, sound = Head(), True
        if not self.conf.conf.is_dir():
            sound = False
        else:
            try:
                composed = head(self.conf, self.overrides, self.profile, self.cache)
                used = {g.partition("/")[0].partition("@")[0] for g in composed.choices}
                self.problems += filter(None, (unused_group(g, used) for g in self.conf.groups))
            except Problems as e:
                self.problems += e.problems
                sound = False
        self.staged = (f"{GROUP}/{composed.stage}",) if composed.stage else ()
        tree, found = self._tree(composed, sound)
        resolved = self._head(composed, tree) if sound else {}
        self._declare(tree, found, Resolver(tree) if sound else None)
        self._look_at_rest()
        around = Surroundings(
            self.root,
            self.lives,
            resolved,
            self._host(resolved, composed.choices.get("host", "auto")),
            self.cache,
            self.recorded,
        )
        around.declarations.update(sorted(self.declarations.items()))
        around.ladders.update(self.ladders)
        declared = Declared(self.root, resolved, composed.choices, around, self.files)
        self.problems += check(declared, self.disabled, self.broken, partial=not sound, earlier=bool(self.problems))
        if self.problems:
            raise Problems(*{str(p): p for p in sorted(self.problems, key=_order)}.values())
        self.cache.release()
        declared.digest()
        return declared

    def plain(self) -> dict[str, Any]:
        """The composed values, resolved; nothing is checked against kinds."""
        made = head(self.conf, self.overrides, self.profile, self.cache)
        tree, _ = self._tree(made, True)
        resolver = Resolver(tree)
        out = {}
        for key, value in tree.items():
            try:
                out[key] = resolver.value(dict(value) if isinstance(value, Blocks) else value, (key,))
            except Unresolved as e:
                self.problems.append(Problem(e.summary, file="conf", why=f"at {'.'.join(map(str, e.at))}", do=e.do))
        if self.problems:
            raise Problems(*self.problems)
        return {k: v for k, v in out.items() if v or not isinstance(tree[k], Blocks)}

    def _tree(self, composed: Head, sound: bool) -> tuple[dict[str, Any], dict[str, Found]]:
        """The head's values with the blocks of the chosen resources under their kinds, overrides applied."""
        chosen = self._chosen(composed) if sound else None
        tree: dict[str, Any] = {k: v for k, v in composed.values.items() if k not in known_kinds()}
        if GROUP in self.conf.groups and isinstance(tree.get("lab"), dict):
            tree["lab"] = {**tree["lab"], GROUP: composed.stage}
        found: dict[str, Found] = {}
        for kind, names in self.conf.kinds.items():
            wanted, wrong = select(chosen, kind, names)
            self.problems += [self._in_head(text, ["resources", kind]) for text in wrong]
            found[kind] = blocks(self.conf, kind, wanted, self.cache, self.problems)
            if self.everything:
                left = sorted(set(names) - set(wanted))
                self.rest[kind] = blocks(self.conf, kind, left, Cache(None), self.problems)
        needing = {k: f.hydra for k, f in found.items() if f.hydra}
        for kind, made in (through_hydra(self.conf, needing, self.problems) if needing else {}).items():
            found[kind].blocks.update(made)
            found[kind].interpolated |= set(made)
            for name in set(found[kind].hydra) - set(made):
                del found[kind].blocks[name]
                found[kind].broken.add(name)
        for kind in known_kinds():
            inline = composed.values.get(kind)
            for name, block in inline.items() if isinstance(inline, dict) else ():
                of_kind = found.setdefault(kind, Found())
                if str(name) in self.conf.kinds.get(kind, ()) and str(name) not in of_kind.blocks:
                    continue
                of_kind.blocks[str(name)] = operations.overlay(of_kind.blocks.get(str(name), {}), block)
                of_kind.interpolated.add(str(name))
        if composed.operations:
            self._override(composed, found)
        for kind, of_kind in found.items():
            tree[kind] = Blocks(of_kind.blocks)
        return tree, found

    def _override(self, composed: Head, found: dict[str, Found]) -> None:
        plain = {k: f.blocks for k, f in found.items()}
        fields = {k: _fields(k) for k in {op.top for op in composed.operations}}
        self.problems += operations.apply(composed.operations, plain, fields)
        for kind, of_kind in plain.items():
            found.setdefault(kind, Found()).blocks = of_kind
            if kind in fields:
                found[kind].interpolated |= set(of_kind)

    def _chosen(self, composed: Head) -> Mapping[str, Any] | None:
        wanted = composed.values.get("resources")
        if wanted is None:
            return None
        try:
            wanted = Resolver(composed.values).value(wanted, ("resources",))
        except Unresolved as e:
            self.problems.append(self._in_head(e.summary, e.at, e.do))
            return None
        if not isinstance(wanted, dict):
            self.problems.append(self._in_head("`resources` must be a mapping of kinds", ["resources"]))
            return None
        for kind in set(wanted) - {*known_kinds(), "*"}:
            hint = did_you_mean(str(kind), known_kinds())
            self.problems.append(self._in_head(f"resources: `{kind}` is no kind{hint}", ["resources", kind], key=True))
        return wanted

    def _head(self, composed: Head, tree: dict[str, Any]) -> dict[str, Any]:
        """The resolved head, checked against its settings."""
        resolver = Resolver(tree)
        out: dict[str, Any] = {}
        groups = {g.partition("/")[0].partition("@")[0] for g in composed.choices}
        for key, value in composed.values.items():
            if key in known_kinds():
                continue
            try:
                out[key] = resolver.value(value, (key,))
            except Unresolved:
                self.problems += [self._in_head(e.summary, e.at, e.do) for e in resolver.faults(value, (key,))]
        checked = {k: v for k, v in out.items() if k not in groups - set(Settings.model_fields)}
        if "lab" not in checked and "lab" in composed.values:
            return out
        try:
            settings = Settings.model_validate(checked)
        except ValidationError as e:
            for fault in faults(e, Settings, checked, ""):
                do = fault.do
                if fault.key and len(fault.path) == 1 and fault.summary.startswith("unknown"):
                    do = "put values of your own under `vars:`"
                self.problems.append(self._in_head(fault.summary, fault.path, do, key=fault.key))
            return out
        return {
            **out,
            "lab": {**settings.lab.model_dump(), **within(settings.lab.id, composed.stage)},
            "apply": settings.apply.model_dump(),
            "offline": settings.offline,
            "together": list(settings.together),
            "moved": [m.model_dump(by_alias=True) for m in settings.moved],
        }

    def _host(self, resolved: Mapping[str, Any], chosen: str) -> Host:
        """The machine that is declared, named as its file is where it says no name; or the machine itself."""
        block = resolved.get("host")
        block = {"name": chosen, **block} if isinstance(block, dict) else {}
        if block.get("name", "auto") == "auto":
            block = {**self.machine().model_dump(), **{k: v for k, v in block.items() if k != "name"}}
        try:
            host = Host.model_validate(block)
            return host.measured(self.machine()) if host.chip else host
        except ValidationError as e:
            for fault in faults(e, Host, block, "host"):
                self.problems.append(self._in_head(fault.summary, ["host", *fault.path], fault.do, key=fault.key))
            return Host()

    def _declare(self, tree: Mapping[str, Any], found: Mapping[str, Found], resolver: Resolver | None) -> None:
        """Blocks become declarations; what does not comes back as problems."""
        for kind in sorted(found):
            of_kind = found[kind]
            self.broken |= {Address.of(kind, n) for n in of_kind.broken}
            model = kinds.load(kind)
            if model is None:
                continue
            ladders = getattr(model.expand, "__func__", None) is not getattr(Declaration.expand, "__func__", None)
            known = self.conf.kinds.get(kind, {})
            for name, block in of_kind.blocks.items():
                address = Address(f"{kind}.{name}")
                self.files[address] = f"conf/{kind}/{name}.yaml" if name in known else self._inline(kind, name)
                if name in of_kind.interpolated:
                    if resolver is None:
                        self.broken.add(address)
                        continue
                    try:
                        block = resolver.value(block, (kind, name))
                    except Unresolved:
                        self.broken.add(address)
                        for e in resolver.faults(block, (kind, name)):
                            self._unresolved(e)
                        continue
                if "on" in model.model_fields and isinstance(block, dict) and True in block:
                    # YAML 1.1 reads the bare word `on` as true.
                    block = {"on" if key is True else key: value for key, value in block.items()}
                if ladders and self._ladder(model, address, block):
                    continue
                if (sound := self._sound(model, address, block)) is not None:
                    self._keep(address, sound)

    def _unresolved(self, e: Unresolved) -> None:
        """Told where it stands, which may be another block or the head; there it is the same problem, and told once."""
        if e.at[0] in known_kinds() and len(e.at) > 1:
            self._fault(Address.of(*map(str, e.at[:2])), Fault(e.summary, e.at[2:], e.do))
        else:
            self.problems.append(self._in_head(e.summary, e.at, e.do))

    def _look_at_rest(self) -> None:
        """What no selection chose is still checked, as far as it stands by itself."""
        for kind, of_kind in self.rest.items():
            model = kinds.load(kind)
            if model is None:
                continue
            for name, block in of_kind.blocks.items():
                if name in of_kind.interpolated or name in of_kind.hydra:
                    continue
                address = Address.of(kind, name)
                for one in (_levels(model, name, block) or {name: block}).values():
                    self._sound(model, address, one)

    def _ladder(self, model: type[Declaration], address: Address, block: Any) -> bool:
        """Whether the block is a ladder; its levels are declared, each under its own address."""
        if (levels := _levels(model, address.name, block)) is None:
            return False
        made = []
        for name, level in levels.items():
            inner = Address.of(address.kind, name)
            self.files[inner] = self.files[address]
            if not is_name(name):
                self._fault(address, Fault(f"`{name}` is no valid name for a level", ()))
                continue
            if (sound := self._sound(model, address, level)) is not None:
                self._keep(inner, sound)
            else:
                self.broken.add(inner)
            made.append(inner)
        self.files.pop(address)
        self.ladders[address] = tuple(made)
        return True

    def _sound(self, model: type[Declaration], address: Address, block: Any) -> Declaration | None:
        """The declaration that a block makes; None where it makes none, and what is wrong with it is told."""
        try:
            return model.model_validate(block)
        except ValidationError as e:
            wrong = faults(e, model, block, address)
        except Exception as e:  # a kind of others may stumble over what nobody foresaw
            wrong = [Fault(f"{address} cannot be understood ({type(e).__name__}: {e})", ())]
        for fault in wrong:
            self._fault(address, fault)
        return None

    def _keep(self, address: Address, declaration: Declaration) -> None:
        if address in self.declarations:
            other = self.files[address]
            self._fault(address, Fault(f"{address} is declared twice", (), f"rename one; the other is in {other}"))
        elif declaration.enabled:
            self.declarations[address] = declaration
        else:
            self.disabled.add(address)

    def _inline(self, kind: str, name: str) -> str:
        options = [self.profile or "", *self.conf.groups.get("profile", ())]
        for file in ["lab", *(f"profile/{p}" for p in filter(None, options)), *self.staged]:
            path = self.root / "conf" / f"{file}.yaml"
            if locate(path, [kind, name]) != locate(path, []):
                return f"conf/{file}.yaml"
        return "conf/lab.yaml"

    def _fault(self, address: Address, fault: Fault) -> None:
        self.broken.add(address)
        file = self.files.get(address) or self.conf.file(address.kind, address.name)
        line, column = locate(self.root / file, fault.path, key=fault.key)
        self.problems.append(Problem(fault.summary, file=file, line=line, column=column, do=fault.do, address=address))

    def _in_head(self, summary: str, path: Sequence[Any], do: str = "", *, key: bool = False) -> Problem:
        """A problem of the head, in the file and line that hold the value."""
        steps = list(path)
        options = [f"profile/{p}" for p in self.conf.groups.get("profile", ())]
        candidates = ["lab.yaml", *(f"{n}.yaml" for n in (*options, *self.staged))]
        if steps[:1] == ["host"]:
            candidates = [f"host/{h}.yaml" for h in self.conf.groups.get("host", ())] + candidates
        best = ("conf/lab.yaml", 1, 1)
        for name in candidates:
            inner = steps[1:] if name.startswith("host/") else steps
            line, column = locate(self.conf.conf / name, inner, key=key)
            if inner and (line, column) != locate(self.conf.conf / name, inner[:-1], key=key):
                return Problem(summary, file=f"conf/{name}", line=line, column=column, do=do)
        return Problem(summary, file=best[0], line=best[1], do=do)


def _levels(model: type[Declaration], name: str, block: Any) -> Mapping[str, Any] | None:
    try:
        return model.expand(name, block) if isinstance(block, dict) else None
    except (TypeError, ValueError, AttributeError, KeyError):
        return None


def _fields(kind: str) -> frozenset[str]:
    model = kinds.load(kind)
    return frozenset(f.alias or n for n, f in model.model_fields.items()) if model else frozenset()


def _order(problem: Problem) -> tuple[str, int, int, str]:
    return problem.file, problem.line, problem.column, problem.summary
