"""What is done on macOS is asked of its own tools with the right words; nothing of it runs here."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "playbooks" / "module_utils"))
darwin: Any = importlib.import_module("lab_host.darwin")
acl: Any = importlib.import_module("lab_host.acl")
machine_: Any = importlib.import_module("lab_host.machine")


def test_an_account_is_made_without_a_password_and_with_its_groups() -> None:
    machine = machine_.Machine(check=True)
    darwin.account(machine, "no-such-guest", "/bin/bash", groups=["lab-guests"], comment="Ann")
    uid = machine.facts["uid"]
    assert machine.done == [
        f"sysadminctl -addUser no-such-guest -fullName Ann -UID {uid} -shell /bin/bash -home /Users/no-such-guest -password *",  # noqa: E501
        "dscl . -delete /Users/no-such-guest AuthenticationAuthority",
        "dscl . -create /Users/no-such-guest Password *",
        "dscl . -create /Users/no-such-guest IsHidden 1",
        "createhomedir -c -u no-such-guest",
        "chmod 0700 /Users/no-such-guest",
        "dseditgroup -o edit -a no-such-guest -t user lab-guests",
        "dseditgroup -o edit -a no-such-guest -t user com.apple.access_ssh",
    ]


def test_going_ends_the_right_to_log_in_first(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machine_.Machine(check=True)
    found = type("Account", (), {"pw_shell": "/bin/bash", "pw_dir": "/nowhere", "pw_uid": 20001})
    monkeypatch.setattr(darwin.pwd, "getpwnam", lambda name: found)
    darwin.retire(machine, "ann", stage="lock")
    darwin.retire(machine, "ann", stage="remove")
    assert machine.done == [
        "dseditgroup -o edit -d ann -t user com.apple.access_ssh",
        "dscl . -create /Users/ann UserShell /usr/bin/false",
        "sysadminctl -deleteUser ann",
    ]


def test_access_lists_are_denied_and_granted_in_macos_words(tmp_path: Path) -> None:
    machine = machine_.Machine(check=True)
    acl.darwin(machine, str(tmp_path), "g:lab-guests", "", False, "present")
    acl.darwin(machine, str(tmp_path), "u:ann", "rX", True, "present")
    acl.darwin(machine, str(tmp_path), "u:ann", "x", False, "present")
    closed, opened, passed = machine.done
    assert closed.startswith("chmod +a group:lab-guests deny list,search,")
    assert "delete_child" in closed
    assert opened.startswith("chmod -R +a user:ann allow list,search,")
    assert "write" not in opened
    assert passed == f"chmod +a user:ann allow search {tmp_path}"


@pytest.mark.parametrize("system", ["linux", "darwin"])
@pytest.mark.parametrize("state", ["present", "absent"])
def test_every_operation_a_role_asks_for_exists_and_takes_its_arguments(system: str, state: str) -> None:
    import inspect
    import json

    import jinja2
    import yaml

    from lab.core.address import Address
    from lab.core.change import Action, Change
    from lab.core.step import Play
    from lab.kinds.guest import Guest
    from tests.host.support import Context

    ops: Any = importlib.import_module("lab_host.ops")
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ann"
    action = Action.CREATE if state == "present" else Action.DESTROY
    made = Context("guest.ann", "/lab", "/lab/state", "/srv/store", home="/home/owner")
    guest = Guest(keys=[key], message="it's {{ odd }}: - yes", hide_processes=True)
    (play,) = guest.steps(Change(Address("guest.ann"), action), made)
    assert isinstance(play, Play)
    folder = Path(__file__).parents[2] / "playbooks/roles/guest/templates"
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder), trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["to_json"] = json.dumps
    text = environment.get_template(f"{system}.yml.j2").render(
        guest_items=[{"id": "guest.ann", **play.args}], guest_group="lab-guests", guest_folder="/etc/lab/guests"
    )
    ((item),) = yaml.safe_load(text)
    todo = [*item["ops"]]
    assert len(todo) > 5
    for op in todo:
        if op["op"] == "last":
            todo += op["ops"]
            continue
        words = {k: v for k, v in op.items() if k != "op"}
        if op["op"] in ("group", "account", "retire"):
            function = getattr(importlib.import_module(f"lab_host.{system}"), op["op"])
        else:
            function = ops.OPS[op["op"]]
        inspect.signature(function).bind(None, **words)


def test_the_broker_is_a_job_that_launchd_and_systemd_read_as_meant(tmp_path: Path) -> None:
    import plistlib
    import shutil
    import subprocess

    from lab.core import guest_programs as programs

    broker: Any = importlib.import_module("lab_host.broker")
    filled = {"@OWNER@": "chris", "@PYTHON@": "/opt/a b/python"}
    job = plistlib.loads(broker.fill(programs.launchd("/Users/chris/my lab"), filled).encode())
    assert job["UserName"] == "chris"
    assert job["Label"] == broker.LABEL
    assert job["KeepAlive"]
    assert job["ProgramArguments"] == ["/opt/a b/python", "-m", "lab", "-C", "/Users/chris/my lab", "guest", "serve"]
    assert broker.fill(programs.sudoers("@OWNER@"), filled).splitlines()[-1] == (
        "chris ALL=(%lab-guests) NOPASSWD: /etc/lab/start"
    )
    unit = broker.fill(programs.systemd("/home/chris/my lab"), {**filled, "@PYTHON@": "/usr/bin/python3"})
    assert 'ExecStart=/usr/bin/python3 -m lab -C "/home/chris/my lab" guest serve' in unit
    if shutil.which("systemd-analyze"):
        (tmp_path / "lab-guests.service").write_text(unit.replace("chris", "root").replace("/var/lib/lab", "/tmp"))
        words = ["systemd-analyze", "verify", str(tmp_path / "lab-guests.service")]
        said = subprocess.run(words, capture_output=True, text=True).stderr
        assert "lab-guests" not in said, said


def test_a_home_that_is_kept_is_kept_by_macos_too(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machine_.Machine(check=True)
    found = type("Account", (), {"pw_shell": "/usr/bin/false", "pw_dir": "/nowhere", "pw_uid": 20001})
    monkeypatch.setattr(darwin.pwd, "getpwnam", lambda name: found)
    darwin.retire(machine, "ann", stage="forget")
    assert machine.done == ["sysadminctl -deleteUser ann -keepHome"]
