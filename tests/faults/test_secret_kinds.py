"""A canary through envs, runs and backups: no byte of it stays, and no process has it but the one it is for."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.canary import CANARY, CANARY_PLAIN, WORDS, Ground, given, leaks, reference, told
from tests.labs import REPO

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/environ"), reason="processes are read from /proc")

# --- environments ----------------------------------------------------------------------------------------------------


@contextmanager
def guarded(folder: Path, user: str) -> Iterator[tuple[str, list[str]]]:
    """A folder behind a password; its address, and the paths it gave."""
    wanted = "Basic " + base64.b64encode(f"{user}:{CANARY_PLAIN}".encode()).decode()
    given: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None: ...

        def do_GET(self) -> None:
            if self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="x"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            given.append(self.path)
            super().do_GET()

        do_HEAD = do_GET  # type: ignore[assignment]

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", given
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["conda", "pip"])
def test_a_private_channel_and_a_private_index(tmp_path: Path, how: str) -> None:
    """Their password lies in ~/.netrc: used to lock and to install, and in no lock, cache, prefix or message."""
    from tests.envs import stands

    served = tmp_path / "served"
    if how == "conda":
        stands.channel(served / "chan")
        about = "channels: ['URL/chan']\nconda: [labdata]\nplatforms: [linux-64]\n"
    else:
        (served / "simple/privy").mkdir(parents=True)
        wheel = served / "privy-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as z:
            info = "privy-1.0.dist-info"
            z.writestr("privy.py", "x = 1\n")
            z.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: privy\nVersion: 1.0\n")
            z.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            z.writestr(f"{info}/RECORD", "")
        sum_ = hashlib.sha256(wheel.read_bytes()).hexdigest()
        link = f'<a href="../../{wheel.name}#sha256={sum_}">{wheel.name}</a>'
        (served / "simple/privy/index.html").write_text(link)
        about = "python: host\npip: [privy]\nplatforms: [linux-64]\n"
    with guarded(served, "u") as (url, given):
        env = {"NETRC": str(tmp_path / "g/home/.netrc"), "UV_DEFAULT_INDEX": f"{url}/simple"}
        ground = Ground(tmp_path / "g", {"env/e": about.replace("URL", url)}, [CANARY_PLAIN], **env)
        netrc = tmp_path / "g/home/.netrc"
        netrc.write_text(f"machine 127.0.0.1 login u password {CANARY_PLAIN}\n")
        netrc.chmod(0o600)
        with ground.watching():
            for words in (("lock",), ("apply", "--yes", "--json-events"), *WORDS, ("env", "export", "e")):
                ran = ground.run(*words)
                assert ran.code == 0, ran
            netrc.write_text(f"machine 127.0.0.1 login u password {CANARY_PLAIN}-wrong\n")
            shutil.rmtree(ground.lab.root / "conf/lock")
            shutil.rmtree(ground.lab.root / "state/cache")
            assert ground.run("lock").code == 1
        assert given
        assert ground.leaks("home/.netrc") == []


@pytest.mark.slow
def test_an_envs_secrets_reach_what_runs_in_it_and_nothing_else(tmp_path: Path) -> None:
    """Also not the process that makes it, its smoke test, or another env's."""
    files = {
        "env/one": "python: host\nsecrets: {TOKEN: env:CANARY}\ncommands: ['env; sleep 0.1']\n",
        "env/two": "python: host\n",
    }
    ground = Ground(tmp_path / "g", files, [CANARY], CANARY=CANARY)
    told(ground, ("lock",), ("apply", "--yes", "--json-events"))
    ran = ground.lab.run("env", "run", "one", "--", "sh", "-c", 'test "$TOKEN" = "$0" && echo has it', CANARY,
                         env=ground.env)  # fmt: skip
    assert ran.out.strip() == "has it", ran
    other = ground.lab.run("env", "run", "two", "--", "env", env=ground.env)
    assert other.code == 0
    assert CANARY not in other.out
    assert leaks(ground.at, [CANARY]) == []


# --- runs ------------------------------------------------------------------------------------------------------------

BOOM = """
import os
def main(x: int = 0):
    print("line", os.environ["TOKEN"].splitlines()[-1])
    raise ValueError("bad " + os.environ["TOKEN"])
"""
USE = "import os, time\nprint('leaks', os.environ['TOKEN'])\ntime.sleep(0.3)\n"


@pytest.mark.slow
@pytest.mark.parametrize("source", ["env", "command"])
def test_a_runs_secret(tmp_path: Path, source: str) -> None:
    """It is masked in a log, in what a call raises, in a reproduction; another run and git never have it."""
    held = reference(source, tmp_path / "held")
    files = {
        "experiment/boom": f"call: boom:main\nparams: {{x: 1}}\nsecrets: {{TOKEN: {held}}}\n",
        "experiment/use": f"command: python use.py\nsecrets: {{TOKEN: {held}}}\n",
        "experiment/other": "command: 'env; sleep 0.2'\n",
    }
    ground = Ground(tmp_path / "g", files, [CANARY], **given(source))
    ground.lab.write("boom.py", BOOM)
    ground.lab.write("use.py", USE)
    (ground.lab.root / ".gitignore").write_text("state/\nstore/\n__pycache__/\n")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "x")):
        ground.lab.git(*words)
    out = str(tmp_path / "g/plan.json")
    deeds = (
        ("plan", "--out", out), ("apply", "--yes", "--json-events"), ("logs", "experiment.boom"), ("runs", "--json"),
        ("show", "experiment.use"), ("reproduce", "experiment.use"), ("activity", "--json"), ("history", "1"),
    )  # fmt: skip
    told(ground, *deeds, fine=(0, 1))
    results = [json.loads(p.read_text()) for p in ground.lab.root.glob("state/runs/*/result.json")]
    assert any("bad ***" in str(r["reason"]) for r in results), results
    assert any(p.read_text() == "leaks ***\n" for p in ground.lab.root.glob("state/runs/use-*/output.log"))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "dask"])
def test_a_sweeps_secret(tmp_path: Path, engine: str) -> None:
    """Neither a worker nor its arguments, nor a W&B folder, nor a bundle has it; nor has any file a tracker's key."""
    key = "canary9Kd82wandbkey" * 2
    files = {
        "experiment/use": "call: use:main\nparams: {x: 0.0}\nwhen: manual\nsecrets: {TOKEN: env:CANARY}\n",
        "sweep/s": f"experiment: use\nspace: {{x: [0.0, 1.0]}}\nobjective: loss\nsampler: grid\nexecutor: {engine}\n",
    }
    ground = Ground(tmp_path / "g", files, [CANARY], WANDB_API_KEY=key, **given("env"))
    head = ground.lab.root / "conf/lab.yaml"
    head.write_text(head.read_text().replace("lab: {", "lab: {tracking: {wandb: offline}, ", 1))
    ground.lab.write(
        "use.py", "import os\n\ndef main(x: float):\n    print(os.environ['TOKEN'])\n    return {'loss': x}\n"
    )
    (ground.lab.root / ".gitignore").write_text("state/\nstore/\n__pycache__/\n")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "x")):
        ground.lab.git(*words)
    told(ground, ("apply", "--yes"), ("run", "use"), ("bundle", "-o", str(tmp_path / "g/b.tar"), "--without", "wheels"))
    assert len(list(ground.lab.root.glob("state/wandb/offline-run-*"))) == 3
    assert (tmp_path / "g/b.tar").is_file()
    assert leaks(ground.at, [key]) == []


def test_a_secret_of_several_lines_is_masked_line_by_line(tmp_path: Path) -> None:
    """A private key, printed by a program: none of its lines is in the log."""
    key = "-----BEGIN KEY-----\ncanaryA7Qx41z9Kd82w\ncanaryB3Vb65y7Qx41z\n-----END KEY-----"
    (tmp_path / "key").write_text(key + "\n")
    about = f"command: 'echo \"$TOKEN\"; exit 3'\nsecrets: {{TOKEN: file:{tmp_path}/key}}\n"
    ground = Ground(tmp_path / "g", {"experiment/e": about}, key.splitlines()[1:3])
    ran = ground.run("apply", "--yes")
    assert ran.code == 1
    assert ground.leaks() == []


CRASH = """
import sys
from lab import adapters
from lab.cli.main import run
def perform(step, stage):
    held = stage.secret("env:CANARY")
    raise ZeroDivisionError(f"{held} in the middle, {held!r} at the end")
adapters.performer = lambda verb: perform
sys.argv = ["lab", *sys.argv[1:]]
run()
"""


@pytest.mark.parametrize("debug", ["", "1"])
def test_a_crash_does_not_tell(tmp_path: Path, debug: str) -> None:
    """A fault in Lab whose words hold the secret: not in what is said, not in the log of details, in no core file."""
    ground = Ground(tmp_path / "g", {"file/a": "path: ROOT/a\ncontent: x\n"}, [CANARY])
    env = {**os.environ, **ground.env, "PYTHONPATH": str(REPO), "CANARY": CANARY, "LAB_DEBUG": debug}
    done = subprocess.run(
        [sys.executable, "-c", CRASH, "-C", str(ground.lab.root), "apply", "--yes", "--json-events"],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "ZeroDivisionError: ••• in the middle" in done.stdout + done.stderr
    ground.said = done.stdout + done.stderr
    assert ground.leaks() == []
    assert "•••" in b"".join(p.read_bytes() for p in ground.lab.root.glob("state/logs/*")).decode()


# --- backups ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("tool", "source"), [("restic", "env"), ("restic", "file"), ("borg", "command")])
def test_a_backups_password(tmp_path: Path, tool: str, source: str) -> None:
    """Through all that is done with a backup, and with a wrong one."""
    if not shutil.which(tool):
        pytest.skip(f"needs {tool}")
    about = f"tool: {tool}\nrepo: ROOT/repo\npassword: {reference(source, tmp_path / 'held')}\npaths: [ROOT/conf]\n"
    env = {"RESTIC_CACHE_DIR": str(tmp_path / "g/cache"), "BORG_BASE_DIR": str(tmp_path / "g/borg")}
    ground = Ground(tmp_path / "g", {"backup/b": about}, [CANARY], **env, **given(source))
    deeds = [("apply", "--yes", "--json-events"), ("backup", "now", "b"), ("backup", "list"), ("backup", "drill", "b")]
    told(ground, *deeds, ("restore", "--to", str(tmp_path / "g/back")), ("backup", "check"))
    ground.env |= {name: f"{value}-wrong" for name, value in given(source).items()}
    (tmp_path / "held/token").write_text(CANARY + "-wrong\n")
    told(ground, ("backup", "now", "b"), ("backup", "check"), fine=(1,))
    assert b"Traceback" not in b"".join(p.read_bytes() for p in ground.lab.root.glob("state/logs/*"))
