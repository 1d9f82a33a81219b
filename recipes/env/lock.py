"""Pins every template anew: `python recipes/env/lock.py [NAME …]` writes `recipes/env/lock/NAME.yaml`.

An env that starts from a template is locked to these versions as far as it does not ask for others.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def main(names: list[str]) -> None:
    """Locks a lab that has one env of each template, and keeps its pins."""
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder) / "conf"
        (conf / "env").mkdir(parents=True)
        (conf / "lab.yaml").write_text(f"lab: {{name: templates, id: templates, store: {folder}/store}}\n")
        for name in names:
            (conf / "env" / f"{name}.yaml").write_text(f"template: {name}\nlock: pins\n")
        (Path(folder) / "recipes").symlink_to(HERE.parent)
        done = subprocess.run([sys.executable, "-m", "lab", "-C", folder, "lock"], check=False)
        for path in sorted((conf / "lock" / "env").glob("*.yaml")):
            (HERE / "lock").mkdir(exist_ok=True)
            (HERE / "lock" / path.name).write_bytes(path.read_bytes())
            print(f"pinned {path.stem}")
        sys.exit(done.returncode)


if __name__ == "__main__":
    main(sys.argv[1:] or sorted(p.stem for p in HERE.glob("*.yaml")))
