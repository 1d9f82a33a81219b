"""Run inside the sandbox: guests and backups through `lab` itself, one and many, with what each took."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path("/srv/lab/repo")
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl g"
report: dict[str, Any] = {}


def lab(*words: str) -> tuple[str, float, float]:
    """(output, wall seconds, CPU seconds) of a `lab` command."""
    begun, before = time.monotonic(), os.times()
    done = subprocess.run(
        [sys.executable, "-m", "lab", "-C", str(ROOT), *words],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, "LAB_PW": "correct horse"},
    )  # fmt: skip
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return f"{done.stdout}{done.stderr}[{done.returncode}]", round(time.monotonic() - begun, 2), round(cpu, 2)


def declare(guests: int, backups: int) -> None:
    for kind, count, text in (
        ("guest", guests, f"keys: ['{KEY}']\nexpires: 2031-01-01\nlimits: {{processes: 100}}\n"),
        ("backup", backups, "repo: /srv/repos/NAME\npassword: env:LAB_PW\ninclude: [conf]\n"),
    ):
        folder = ROOT / "conf" / kind
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.yaml"):
            old.unlink()
        for n in range(count):
            (folder / f"x{n}.yaml").write_text(text.replace("NAME", f"x{n}"))


def main(many: int, backups: int) -> None:
    (ROOT / "conf").mkdir(parents=True)
    (ROOT / "conf/lab.yaml").write_text(
        "lab: {name: studio, id: 6f0e3c1c-2f0b-4a5e-9c57-0f6a3d1c8b42, store: /srv/lab/store}\n"
        "resources: {guest: '*', backup: '*'}\n"
    )
    subprocess.run(["ssh-keygen", "-A"], capture_output=True)
    declare(1, 1)
    out, *report["one"] = lab("apply", "--yes")
    report["applied one"] = out[-400:]
    report["nothing to do"] = "No changes" in lab("plan")[0]
    Path("/etc/lab/guests/x0/guide").write_text("tampered")
    report["drift is seen"] = bool(re.search("guest.x0", lab("plan")[0]))
    out, *_ = lab("apply", "--yes")
    report["repaired"] = "No changes" in lab("plan")[0]
    declare(many, backups)
    out, *report["many"] = lab("apply", "--yes")
    report["applied many"] = out[-400:]
    out, *report["no-op plan"] = lab("plan")
    report["nothing to do for many"] = "No changes" in out
    report["no-op plan again"] = lab("plan")[1:]
    declare(0, 0)
    out, *report["removed"] = lab("apply", "--yes", "--allow-destroy")
    report["removed said"] = out[-400:]
    report["left"] = [Path("/etc/lab").exists(), subprocess.run(["id", "x1"], capture_output=True).returncode == 0]
    print(json.dumps(report))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
