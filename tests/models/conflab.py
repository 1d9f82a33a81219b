"""A whole lab in a folder, driven through its command line as a user would."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from lab.cli.main import main
from lab.core.problem import Problems


class Folder:
    """A lab: `conf/lab.yaml` and whatever is declared."""

    def __init__(self, root: Path, **settings: Any) -> None:
        self.root = root
        self.store = root / "store"
        (root / "conf").mkdir(parents=True)
        block = {"name": "t", "id": "lab-for-tests", "store": str(self.store), **settings}
        (root / "conf/lab.yaml").write_text(yaml.safe_dump({"lab": block}))

    def declare(self, name: str, kind: str = "model", **block: Any) -> Path:
        file = self.root / "conf" / kind / f"{name}.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(yaml.safe_dump(block))
        return file

    def run(self, *words: str) -> tuple[int, str]:
        """Exit code, and what was printed; problems are printed as the command line does."""
        out, self.told = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(self.told):
            try:
                code = main(["-C", str(self.root), *words], out, out)
            except Problems as e:
                code = 1
                print("\n".join(str(p) for p in e.problems), file=out)
        return code, out.getvalue()

    def json(self, *words: str) -> Any:
        code, text = self.run(*words, "--json")
        assert code == 0, text
        return json.loads(text)

    def ok(self, *words: str) -> str:
        code, text = self.run(*words)
        assert code == 0, text + self.told.getvalue()
        return text

    def process(self, *words: str) -> subprocess.Popen[bytes]:
        """The same in a process of its own, that can be killed."""
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        words = (sys.executable, "-m", "lab", "-C", str(self.root), *words)
        return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
