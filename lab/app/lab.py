"""Lab: one laboratory, opened from its folder; every verb starts from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lab import adapters, declare, kinds
from lab.adapters import git, machine
from lab.adapters.secrets import resolve, withhold
from lab.adapters.world import Hashes, Machine
from lab.apply.events import Event, Tell, silent
from lab.apply.stage import Places, Work
from lab.core import stages
from lab.core.address import Address
from lab.core.facts import Facts
from lab.core.host import Host
from lab.core.kind import Context, Declaration
from lab.core.problem import Problems, Unknown, problem
from lab.core.record import Record
from lab.core.secret import references
from lab.core.step import Step
from lab.core.world import Depth
from lab.declare.stage import agreed, asked, chosen
from lab.ledger import generations, lock
from lab.ledger.ledger import Ledger
from lab.ledger.place import Place
from lab.ledger.sqlite import File
from lab.plan.decide import Observation, Wanted
from lab.plan.plan import Header


@dataclass(frozen=True)
class Lab:
    """A lab in a folder: what it declares, what its ledger holds, and the way to the machine.

    Nothing is read before it is asked for, and each thing once.
    """

    root: Path
    overrides: tuple[str, ...] = ()
    tell: Tell = silent
    source: Path | None = None
    """Where the declarations are read from, if not from `root`: an exported commit."""
    _early: Mapping[Address, Record] | None = field(default=None, init=False, repr=False, compare=False)

    @classmethod
    def find(cls, start: Path, overrides: Sequence[str] = (), tell: Tell = silent) -> Lab:
        """The lab whose folder holds `start`."""
        start = start.absolute()
        if not start.is_dir():
            raise problem(f"{start} is no folder", do="give the folder of a lab with -C")
        for at in (start, *start.parents):
            if (at / "conf" / "lab.yaml").is_file():
                return cls(at, tuple(overrides), tell)
        raise problem(
            f"{start} is not in a lab", why="no conf/lab.yaml here or above", do="make one here with `lab init .`"
        )

    # --- what is declared --------------------------------------------------------------------------------------

    @property
    def conf(self) -> Path:
        """The Hydra config directory."""
        return self.root / "conf"

    @cached_property
    def stage(self) -> str:
        """The stage in force, told without composing; empty where none is. Raises Problems where it is not there."""
        return chosen(self.source or self.root, self.overrides)

    @cached_property
    def state(self) -> Path:
        """The machine-local state: a stage has its own."""
        return Path(stages.state(str(self.root), self.stage))

    @property
    def locks(self) -> tuple[str, ...]:
        """Where locks lie: the folder that `lab lock` writes, then those it shares with other stages."""
        return stages.locks(str(self.root), self.stage)

    @property
    def common(self) -> Path:
        """What this machine's stages share: what was measured of it."""
        return stages.common(self.state)

    def again(self, overrides: Sequence[str] | None = None, *, source: Path | None = None) -> Lab:
        """The same lab and stage, read anew, with other overrides where some are given."""
        said = self.overrides if overrides is None else tuple(overrides)
        if self.stage and asked(said) is None:
            said = (f"{stages.GROUP}={self.stage}", *said)
        return Lab(self.root, said, self.tell, source)

    @cached_property
    def declared(self) -> declare.Declared:
        """What the lab declares; raises Problems with all that is wrong."""
        found = declare.load(
            self.source or self.root,
            self.overrides,
            cache=self.state / "cache" / "declare",
            recorded=self._recorded,
            machine=lambda: read_machine(self.common),
            lives=self.root if self.source else None,
        )
        withhold(r for d in found.declarations.values() for r in references(d))
        if unlike := agreed(self.stage, found.choices):
            raise Problems(unlike)
        found.remember(self._remembered)
        return found

    def _remembered(self, address: Address) -> Declaration | None:
        record = self.records.get(address)
        return self.revive(record) if record else None

    def _recorded(self, address: str, head: Mapping[str, Any]) -> Facts | None:
        """What the ledger holds of a resource."""
        if "declared" in self.__dict__:
            records = self.records
        else:
            # A kind may ask while the lab is still being composed: all there is then is the head.
            if self._early is None:
                with closing(Ledger.read(self._place_of(head), "")) as ledger:
                    object.__setattr__(self, "_early", ledger.records())
            records = self._early or {}
        found = records.get(Address(address))
        return found.facts if found else None

    @property
    def head(self) -> Mapping[str, Any]:
        """The composed `lab.yaml`, host and profile."""
        return self.declared.head

    @property
    def host(self) -> Host:
        """The machine, declared or read."""
        return self.declared.host

    @property
    def store(self) -> Path:
        """The model store."""
        return Path(self.declared.store)

    def place(self, address: str, field: str = "") -> tuple[str, int]:
        """File and line of a declaration or of one field of it; ("", 0) where it is not declared."""
        if Address(address) not in self.declarations:
            return "", 0
        if field:
            file, line, _ = self.declared.where.at(Address(address), field, key=True)
            if line:
                return file, line
        return self.declared.where[Address(address)]

    @property
    def offline(self) -> bool:
        """Whether every connection but loopback is refused."""
        return bool(self.head.get("offline", False))

    @property
    def id(self) -> str:
        """The lab's own id, from lab.yaml."""
        return str(self.head.get("lab", {}).get("id", ""))

    @property
    def profile(self) -> str:
        """The profile in force; empty where none is."""
        return self.declared.profile

    @property
    def declarations(self) -> Mapping[Address, Declaration]:
        """Every enabled resource's declaration."""
        return self.declared.declarations

    def context(self, address: str) -> Context:
        """What a declared resource may know besides itself."""
        return self.declared.context(Address(address))

    def declaration(self, address: str) -> Declaration:
        """A declared resource; a Problem with the nearest address where there is none."""
        from lab.core.problem import did_you_mean

        found = self.declarations.get(Address(address))
        if found is None:
            raise problem(
                f"`{address}` is not declared{did_you_mean(address, self.declarations)}", do="see `lab status`"
            )
        return found

    def wanted(self, address: Address) -> Wanted:
        """What a declared resource asks for."""
        d = self.declared
        declaration = d.declarations[address]
        return Wanted(declaration, declaration.wanted(d.context(address)), d.inputs[address], d.digests[address])

    # --- what is recorded --------------------------------------------------------------------------------------

    @property
    def stamps(self) -> tuple[Path, ...]:
        """Where the ledger's progress is noted, so that its loss is seen: beside it, and in the store."""
        return (self.state / "stamp.json", self.store / f".ledger-{self.id}.json")

    @cached_property
    def kept(self) -> Place:
        """Where the ledger is kept: a file in `state/`, or the server that `lab.ledger` names."""
        return self._place_of(self.head)

    @cached_property
    def others(self) -> Mapping[str, Path]:
        """Every other stage that was applied here → its state; "" stands for the lab without a stage. Reads."""
        folder = self.common / stages.GROUP
        found = [("", self.common), *((p.name, p) for p in sorted(folder.iterdir()))] if folder.is_dir() else []
        return {n: p for n, p in found if n != self.stage and (p / "stamp.json").exists()}

    def ledger_of(self, stage: str, *, aloof: bool = False) -> Ledger:
        """The ledger of another stage, for reading; to be closed. Raises Problems where it cannot be read."""
        state = Path(stages.state(str(self.root), stage))
        lab = self.head.get("lab") or {}
        there = {**self.head, "lab": {**lab, "id": stages.own(stages.declared(lab), stage)}}
        place = self._place_of(there, state)
        return Ledger.read(File(place.path, aloof=aloof) if isinstance(place, File) else place, "")

    def records_of(self, stage: str, *, aloof: bool = False) -> Mapping[Address, Record]:
        """What the ledger of another stage holds. Raises Problems where it cannot be read. Reads."""
        with closing(self.ledger_of(stage, aloof=aloof)) as ledger:
            return ledger.records()

    def _place_of(self, head: Mapping[str, Any], state: Path | None = None) -> Place:
        lab = head.get("lab") or {}
        if not (server := lab.get("ledger")):
            return File((state or self.state) / "ledger.sqlite")
        from lab.adapters.postgresql import Server

        return Server.open(
            {"url": server} if isinstance(server, str) else server,
            str(lab.get("id", "")),
            offline=bool(head.get("offline")),
            tell=lambda text: self.tell(Event("say", text=text)),
        )

    @contextmanager
    def alone(self, verb: str) -> Iterator[str]:
        """Nobody else writes to this lab inside, here or elsewhere; yields what to tell of a dead holder, else ""."""
        with lock.held(self.state / "lock", verb) as told, self.kept.held(verb):
            yield told

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, for reading."""
        return Ledger.read(self.kept, self.id, self.stamps)

    @cached_property
    def records(self) -> Mapping[Address, Record]:
        """Every record by address."""
        return self.ledger.records()

    def revive(self, record: Record) -> Declaration:
        """The declaration behind a record; raises Unknown where its kind is gone or no longer takes it."""
        kind = kinds.load(record.address.kind)
        if kind is None:
            raise Unknown(f"the kind `{record.address.kind}` is not installed")
        try:
            return kind.model_validate(record.declaration)
        except ValueError as e:
            raise Unknown(f"this Lab no longer takes the recorded declaration of {record.address}") from e

    # --- the machine -------------------------------------------------------------------------------------------

    @cached_property
    def hashes(self) -> Hashes:
        """Known file hashes."""
        return Hashes(self.state / "cache" / "files.sqlite")

    def world(self, depth: Depth = Depth.STAT) -> Machine:
        """The machine, read only."""
        return Machine(depth, self.hashes)

    def observer(self, depth: Depth = Depth.STAT) -> Callable[[Address, Wanted | None, Record | None], Observation]:
        """How a plan looks at the machine."""
        world = self.world(depth)

        def observe(address: Address, want: Wanted | None, record: Record | None) -> Observation:
            try:
                new = want.declaration.observe(world, self.context(address)) if want else None
                if record is None:
                    return Observation(new)
                if want and (record.digest == want.digest or record.inputs.get("fields") == want.inputs["fields"]):
                    return Observation(new, new)
                declaration = self.revive(record)
                return Observation(
                    new, declaration.observe(world, self.declared.context_for(record.address, declaration))
                )
            except Unknown as e:
                return Observation(unknown=str(e))
            except Problems as e:
                return Observation(unknown=e.problems[0].summary)
            except OSError as e:
                return Observation(unknown=f"{e.filename}: {e.strerror}" if e.filename else str(e))

        return observe

    @property
    def places(self) -> Places:
        """Where this lab keeps what steps touch."""
        return Places(self.root, self.state, self.store, self.offline, self.stage)

    def work(self, address: str) -> Work:
        """What a step outside an apply is given besides itself."""
        return Work(address, self.places, resolve, self.world().note, self.tell)

    def perform(self, step: Step, address: str) -> Facts:
        """A step is performed, outside an apply; what its performer returned."""
        perform = adapters.performer(step.verb)
        work = self.work(address)
        if step.batch:
            (told,) = perform([step], [work])
            if isinstance(told, Problems):
                raise told
        else:
            told = perform(step, work)
        self.hashes.save()
        return told or {}

    def header(self, verb: str = "apply") -> Header:
        """What a plan made now is made of."""
        head = git.head(self.root)
        return Header(
            lab=str(self.head.get("lab", {}).get("name", self.root.name)),
            lab_id=self.id,
            profile=self.profile,
            stage=self.stage,
            host=self.host.name,
            branch=head.branch,
            revision=head.revision,
            dirty=head.dirty,
            generation=generations.latest(self.ledger),
            serial=self.ledger.serial,
            overrides=self.overrides,
            verb=verb,
        )


def read_machine(state: Path | None = None) -> Host:
    """This machine as a host, with what `lab calibrate` measured. Reads."""

    return machine.read(state)
