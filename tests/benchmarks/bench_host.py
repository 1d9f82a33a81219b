"""Guests and backups in one apply, beside a plain ansible-playbook with loops, each in a copy of this machine.

    sudo python -m tests.benchmarks.bench_host [--guests 50] [--backups 20] [--write]

Prints Markdown; `--write` puts it into docs/performance.md. Both make the same accounts, keys, limits, cron denials and
access lists; the playbook leaves out what it has no module for (the broker, closing the store, uids never given twice).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.host import inside_apply, sandbox

PLAIN = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    files: [authorized_keys, rules, guide, rights.json]
  tasks:
    - ansible.builtin.group: {name: lab-guests, system: true}
    - ansible.builtin.file: {path: /etc/lab/guests, state: directory, mode: "0755"}
    - ansible.builtin.copy: {dest: /etc/lab/session, content: "x", mode: "0755"}
    - ansible.builtin.copy: {dest: /etc/ssh/sshd_config.d/10-guests.conf, content: "# x", mode: "0644"}
    - ansible.builtin.file: {path: "/etc/lab/guests/{{ item }}", state: directory, mode: "0755"}
      loop: "{{ guests }}"
    - ansible.builtin.copy: {dest: "/etc/lab/guests/{{ item.0 }}/{{ item.1 }}", content: "{{ item.0 }}", mode: "0644"}
      loop: "{{ guests | product(files) }}"
    - ansible.builtin.copy: {dest: "/etc/security/limits.d/60-{{ item }}.conf", content: "x", mode: "0644"}
      loop: "{{ guests }}"
    - ansible.builtin.user:
        {name: "{{ item }}", groups: lab-guests, password: "*", expires: 1924992000, uid: "{{ 30000 + n }}"}
      loop: "{{ guests }}"
      loop_control: {index_var: n}
    - ansible.builtin.lineinfile: {path: "{{ item.1 }}", line: "{{ item.0 }}", create: true, mode: "0644"}
      loop: "{{ guests | product(['/etc/cron.deny', '/etc/at.deny']) }}"
    - ansible.builtin.command: setfacl -m g:lab-guests:--- {{ item.1 }}
      loop: "{{ guests | product(['/srv', '/root']) }}"
      changed_when: false
    - ansible.builtin.command: restic init --repo /srv/repos/{{ item }}
      args: {creates: "/srv/repos/{{ item }}/config"}
      environment: {RESTIC_PASSWORD: correct horse}
      loop: "{{ backups }}"
"""


def timed(*argv: str, **env: str) -> list[float]:
    """[wall, CPU] seconds of a command that must work."""
    begun, before = time.monotonic(), os.times()
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, **env})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return [round(time.monotonic() - begun, 2), round(cpu, 2)]


def inside_lab(guests: int, backups: int) -> dict[str, Any]:
    """Lab's figures: apply, and two plans with nothing to do."""
    root = inside_apply.ROOT
    (root / "conf").mkdir(parents=True)
    (root / "conf/lab.yaml").write_text(
        "lab: {name: studio, id: 6f0e3c1c-2f0b-4a5e-9c57-0f6a3d1c8b42, store: /srv/lab/store}\n"
        "resources: {guest: '*', backup: '*'}\n"
    )
    subprocess.run(["ssh-keygen", "-A"], capture_output=True)
    inside_apply.declare(guests, backups)
    words, env = [sys.executable, "-m", "lab", "-C", str(root)], {"LAB_PW": "correct horse"}
    out = {"apply": timed(*words, "apply", "--yes", **env)}
    timed(*words, "plan")
    return {**out, "again": min(timed(*words, "plan", "--detailed-exitcode") for _ in range(3))}


def inside_plain(guests: int, backups: int) -> dict[str, Any]:
    """The playbook's figures: the first run, and one with nothing to do."""
    Path("/tmp/plain.yml").write_text(PLAIN)
    Path("/srv/repos").mkdir(parents=True)
    names = json.dumps({"guests": [f"g{n}" for n in range(guests)], "backups": [f"b{n}" for n in range(backups)]})
    words = [str(Path(sys.executable).with_name("ansible-playbook")), "-e", names, "/tmp/plain.yml"]
    env = {"ANSIBLE_PIPELINING": "1", "ANSIBLE_PYTHON_INTERPRETER": sys.executable, "ANSIBLE_LOCALHOST_WARNING": "0"}
    return {"apply": timed(*words, **env), "again": timed(*words, **env)}


def main() -> None:
    """Prints, and with `--write` keeps, the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--guests", type=int, default=50)
    parser.add_argument("--backups", type=int, default=20)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    rows = []
    for name, kind in (("Lab", "lab"), ("ansible-playbook with loops", "plain")):
        for guests, backups in ((1, 1), (options.guests, options.backups)):
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                found = sandbox.inside(Path(__file__), Path(folder), kind, str(guests), str(backups), timeout=3000)
            cells = [f"{wall:.1f} s · {cpu:.1f} CPU s" for wall, cpu in (found["apply"], found["again"])]
            what = f"{guests} guest{'s' * (guests > 1)}, {backups} backup{'s' * (backups > 1)}"
            rows.append(f"| {name} | {what} | {' | '.join(cells)} |")
    text = "\n".join(["| | | made | nothing to do |", "|---|---|---|---|", *rows])
    print(text)
    if options.write:
        page = Path(__file__).parents[2] / "docs/performance.md"
        before, _, rest = page.read_text().partition("<!-- host -->\n")
        _, _, after = rest.partition("<!-- /host -->\n")
        page.write_text(f"{before}<!-- host -->\n{text}\n<!-- /host -->\n{after}")


if __name__ == "__main__":
    if sys.argv[1:2] in (["lab"], ["plain"]):
        inside = inside_lab if sys.argv[1] == "lab" else inside_plain
        print(json.dumps(inside(int(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
