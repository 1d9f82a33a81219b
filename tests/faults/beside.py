"""Beside: a lab in one of two states, with a run that lives until it is let go."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.labs import Ran, TestLab

PROBE = """
import hashlib, json, pathlib, sys, time
model, rows, go, out = map(pathlib.Path, sys.argv[1:])
go.with_suffix(".begun").touch()
while not go.exists():
    time.sleep(0.02)
import pinned_one
seen = {"version": pinned_one.__version__, "prefix": sys.prefix}
seen["model"] = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
seen["rows"] = (rows / "train.jsonl").read_text()
out.write_text(json.dumps(seen))
print("loss=0.5")
"""
GIVEN = "env: one\nmodels: {base: base}\ndatasets: {rows: rows}\ncode: [probe.py]\n"
RUN = (
    "command: '{python} probe.py {models.base} {datasets.rows} ROOT/go {outputs.seen}'\nwhen: manual\n"
    f"{GIVEN}outputs: {{seen: seen.json}}\nmetrics: [loss]\npatterns: {{loss: 'loss=(.+)'}}\n"
)
SWEPT = (
    "command: '{python} probe.py {models.base} {datasets.rows} ROOT/go{x} {run}/seen.json'\nwhen: manual\n"
    f"params: {{x: 1}}\n{GIVEN}metrics: [loss]\npatterns: {{loss: 'loss=(.+)'}}\n"
)
SWEEP = "experiment: swept\nspace: {x: [1, 2]}\nobjective: loss\nsampler: grid\nparallel: 1\n"


@dataclass
class Bench:
    """What both states of the lab are made of."""

    top: Path
    env: Mapping[str, str]
    locks: dict[int, str] = field(default_factory=dict)

    def files(self, n: int) -> dict[str, str]:
        """The env, the model and the rows of the first or second state."""
        return {
            "env/one": self.wheel(n),
            "lock/env/one": self.locks.get(n, ""),
            "model/base": f"path: {self.top}/model{n}\nplace: copy\n",
            "dataset/rows": f"path: {self.top}/rows{n}\n",
            "file/note": f"path: ROOT/out/note\ncontent: note {n}\n",
        }

    def wheel(self, n: int) -> str:
        """The env with one wheel of that version."""
        return f"python: host\nlock: pins\npip: [pinned-one=={n}.0]\ncommands: [\"python -c 'import pinned_one'\"]\n"


def stood(top: Path) -> Bench:
    """Two models, two datasets, two versions of one wheel, and both locks."""
    import numpy

    from tests.envs.test_lock import wheel
    from tests.models import make

    (top / "wheels").mkdir()
    env = {"UV_FIND_LINKS": f"{top}/wheels", "UV_NO_INDEX": "1", "UV_CACHE_DIR": f"{top}/uv"}
    bench = Bench(top, env | {"LAB_BESIDE_WORD": "correct horse", "RESTIC_CACHE_DIR": f"{top}/restic"})
    for n in (1, 2):
        make.safetensors(top / f"model{n}", tensors={"lm_head.weight": numpy.full((96, 64), n, "float16")})
        (top / f"rows{n}").mkdir()
        (top / f"rows{n}/train.jsonl").write_text(f'{{"text": "rows {n}"}}\n')
        wheel(top / "wheels", "pinned_one", f"{n}.0")
        lab = TestLab.make(top / f"lab{n}", {"env/one": bench.wheel(n)})
        locked = lab.run("lock", env=bench.env)
        assert locked.code == 0, locked
        bench.locks[n] = (lab.root / "conf/lock/env/one.yaml").read_text()
    return bench


class Beside:
    """A lab in its first state, with something that lives in it."""

    def __init__(self, top: Path, bench: Bench, more: Mapping[str, str]) -> None:
        self.bench, self.more = bench, more
        self.lab = TestLab(top / "lab")
        self.lab.write("probe.py", PROBE)
        self.declare(1)
        assert self("apply", "--yes").code == 0, self("apply", "--yes")

    def declare(self, n: int, *without: str) -> None:
        """The lab is declared in that state, less what is left out."""
        shutil.rmtree(self.lab.root / "conf", ignore_errors=True)
        files = {**self.bench.files(n), **self.more}
        kept = {k: v for k, v in files.items() if k not in without}
        TestLab.make(self.lab.root, kept, "apply: {patience: 0.3}\n")

    def __call__(self, *words: str) -> Ran:
        return self.lab.run(*words, env=self.bench.env)

    def begin(self) -> None:
        """The run lives, and waits."""
        assert self("run", "long", "--detach").code == 0
        self.begun("go")

    def begun(self, name: str) -> None:
        """A program has come to where it waits for a file."""
        until = time.monotonic() + 60
        while not list(self.lab.root.glob(f"{name}.begun")):
            assert time.monotonic() < until
            time.sleep(0.02)

    def finish(self) -> dict[str, str]:
        """What the run saw, once it was let go."""
        (self.lab.root / "go").touch()
        (folder,) = (f for f in (self.lab.root / "state/runs").iterdir() if f.name.startswith("long-"))
        until = time.monotonic() + 60
        while not (folder / "result.json").exists():
            assert time.monotonic() < until
            time.sleep(0.02)
        result = json.loads((folder / "result.json").read_text())
        assert result["state"] == "finished", (result, (folder / "output.log").read_text())
        seen: dict[str, str] = json.loads((folder / "outputs/seen.json").read_text())
        return seen

    def as_first(self, seen: Mapping[str, str]) -> None:
        """All that a run saw was of the first state."""
        from lab.adapters.store import digest

        assert seen["version"] == "1.0", seen
        assert seen["model"] == digest(self.bench.top / "model1/model.safetensors"), seen
        assert "rows 1" in seen["rows"], seen

    def settled(self) -> None:
        """One more apply, and all is as declared, sound, and nothing is left over."""
        done = self("apply", "--yes")
        assert done.code == 0, done
        assert "No changes" in (said := self("plan").out), said
        verified = self("verify")
        assert verified.code == 0, verified
        assert self("state", "check").code == 0
        left = [p for p in self.lab.root.rglob("*") if p.name.endswith(("lab-tmp", ".tmp", ".part"))]
        assert not left, left
