"""A lab that is wholly offline: locked, made, used, bundled and rebuilt, with every socket call of its processes read.

Real conda packages, llama.cpp, MLflow and git, each traced by strace. Proves S2-1.2-2: the data stay on the machine.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engines import make
from tests.host.machines import NO_NET, Machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace"),
]

SAYS = "connect,sendto,sendmsg,sendmmsg"
FAMILY = re.compile(r"sa_family=(\w+)")
LOOPBACK = re.compile(r'inet_addr\("127\.|inet_pton\(AF_INET6, "(::1|::ffff:127\.[\d.]+)"')
FILES = {
    "conf/lab.yaml": """\
lab: {name: closed, id: 5d0a1b1c-0000-4a5e-9c57-0f6a3d1c8b43, store: "${oc.env:LAB_STORE}"}
offline: true
resources: {file: '*', env: '*', model: '*', quantization: '*', experiment: '*'}
""",
    "conf/file/motd.yaml": "path: ~/motd\ncontent: hello\n",
    "conf/env/greet.yaml": "channels: [recipes/channel/demo]\nconda: [lab-greet]\n",
    "conf/model/tiny.yaml": "path: tiny\n",
    "conf/quantization/small.yaml": "of: tiny\nformat: gguf\ntype: Q8_0\n",
    "conf/experiment/size.yaml": "call: work:main\nmodels: {m: quantization.small}\nmetrics: [bytes]\n",
    "work.py": "from pathlib import Path\n\n\ndef main(models: dict = {}):\n"
    "    return {'bytes': float(sum(p.stat().st_size for p in [Path(models['m']), *Path(models['m']).rglob('*')]))}\n",
    ".gitignore": "state/\n__pycache__/\n",
}


def outside(calls: str) -> list[str]:
    """The socket calls that name an address which is not of this machine."""
    named = [line for line in calls.splitlines() if FAMILY.search(line)]
    return [n for n in named if FAMILY.findall(n)[0] in ("AF_INET", "AF_INET6") and not LOOPBACK.search(n)]


def traced(at: Path, command: list[str], env: dict[str, str], *, net: bool) -> subprocess.CompletedProcess[str]:
    """The command and every process it starts; none of them spoke, or tried to speak, to another machine."""
    calls = at / "calls"
    trace = ["strace", "-f", "-qq", "-e", f"trace={SAYS}", "-e", "signal=none", "-o", str(calls)]
    done = subprocess.run(
        [*trace, *([] if net else NO_NET), *command],
        cwd=at, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert outside(calls.read_text()) == [], command
    return done


def lab(machine: Machine, *words: str, net: bool = True) -> str:
    """`lab WORDS…` on a machine, traced."""
    return traced(machine.at, [sys.executable, "-m", "lab", *words], machine.env, net=net).stdout


@pytest.fixture(autouse=True)
def _namespaces() -> None:
    if subprocess.run([*NO_NET, "true"], capture_output=True).returncode:
        pytest.skip("no network namespaces here")


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"])
def test_a_process_that_speaks_to_another_machine_is_seen(tmp_path: Path, address: str) -> None:
    """A datagram is enough, and a grandchild that does it: else the test below could not fail."""
    family = "AF_INET6" if ":" in address else "AF_INET"
    code = f"import socket; socket.socket(socket.{family}, socket.SOCK_DGRAM).connect_ex(('{address}', 9))"
    with pytest.raises(AssertionError, match=re.escape(address)):
        traced(tmp_path, ["sh", "-c", f'{sys.executable} -c "{code}"; true'], Machine(tmp_path / "m").env, net=False)


def test_a_lab_is_made_used_bundled_and_rebuilt_and_nothing_leaves_the_machine(tmp_path: Path) -> None:
    """The first machine has a network and does not use it; the second, empty, has none: each digest is equal there."""
    old, new = Machine(tmp_path / "old"), Machine(tmp_path / "new")
    for name, text in FILES.items():
        path = old.at / "lab" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    make.model(old.at / "lab/tiny")
    lab(old, "-C", "lab", "lock")
    for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-qm", "x")):
        old.git(*words)
    lab(old, "-C", "lab", "apply", "--yes")
    lab(old, "-C", "lab", "bundle", "-o", "b.tar", "--without", "wheels")
    shutil.move(old.at / "b.tar", new.at / "b.tar")
    shutil.move(old.at, tmp_path / "gone")

    found = json.loads(lab(new, "rebuild", "--from", "b.tar", "--into", "lab", "--yes", "--json", net=False))
    assert {r["address"]: r["verdict"] for r in found["resources"]} == dict.fromkeys(
        ("env.greet", "experiment.size", "file.motd", "model.tiny", "quantization.small"), "identical"
    )
    assert "No changes" in lab(new, "-C", "lab", "plan", net=False)

    # Not only what was bundled: the lab goes on being worked with there.
    lab(new, "-C", "lab", "config", "set", "quantization.small.type", "Q4_0", net=False)
    lab(new, "-C", "lab", "apply", "--yes", net=False)
    assert "No changes" in lab(new, "-C", "lab", "plan", net=False)
    runs = json.loads(lab(new, "-C", "lab", "runs", "--json", net=False))
    sizes = [r["metrics"]["bytes"] for r in sorted(runs, key=lambda r: r["started"])]
    assert len(sizes) == 2
    assert sizes[1] < sizes[0]
    lab(new, "-C", "lab", "generate", "quantization.small", "the", "--max-tokens", "4", net=False)
