"""The owner always gets in: sshd is checked, tried by a real login, and goes back by itself unless it is confirmed.

A real sshd and real logins in a throw-away copy of this machine; Tailscale is a recorder of its arguments, its daemon
cannot run here. Proves S0-4.6-3, S0-US-003-1, S0-US-003-2, S0-US-003-3, S0-US-003-4, S0-7.1-2.
"""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from lab.app import access as accesses
from lab.core import access_files as text
from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.host import Host
from lab.kinds.access import Access, Tailscale
from tests.host import sandbox
from tests.host.support import Context


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if why := sandbox.possible():
        pytest.skip(why)
    return sandbox.inside(Path(__file__).with_name("inside_access.py"), tmp_path_factory.mktemp("sandbox"))


real = [pytest.mark.root, pytest.mark.slow]


class TestReally:
    """With a real sshd."""

    pytestmark = real

    def test_it_is_as_declared_and_each_device_gets_in(self, report: dict[str, Any]) -> None:
        assert report["gets in at first"]
        assert report["applied"] is True
        assert report["as declared"] == []
        assert report["devices and the old key get in"] == [True, True, True]
        assert not report["who is not named does not"]
        assert report["no password is asked for"]

    def test_unconfirmed_it_goes_back_by_itself(self, report: dict[str, Any]) -> None:
        assert report["a change waits"]
        assert report["unconfirmed it went back"]

    def test_only_a_fresh_session_confirms(self, report: dict[str, Any]) -> None:
        assert report["applied again"] is True
        assert report["no confirmation from here"] == "this is no ssh session"
        assert report["an old session does not confirm"] == "this session is older than the change"
        assert report["the word is written"]

    def test_ten_wrong_declarations_lock_nobody_out(self, report: dict[str, Any]) -> None:
        wrong = report["wrong"]
        assert len(wrong) == 10
        assert [n for n, w in wrong.items() if not w["refused"]] == []
        assert [n for n, w in wrong.items() if not w["same rules"]] == []
        assert [n for n, w in wrong.items() if not w["gets in"]] == []

    def test_one_device_less_is_one_change_and_only_it_is_out(self, report: dict[str, Any]) -> None:
        assert report["one device less is one change"] == ["files./etc/lab/access/keys/owner"]
        assert report["only the other is out"] == [True, False]

    def test_a_hand_edit_is_seen_and_repaired(self, report: dict[str, Any]) -> None:
        assert report["hand edit is seen"] == [f"files.{text.DROP_IN}"]
        assert report["and repaired"] == []

    def test_destroying_it_leaves_sshd_as_it_was(self, report: dict[str, Any]) -> None:
        assert report["destroyed"] is True
        assert report["left or changed"] == []
        assert report["nothing left"] == [False, None]

    def test_the_probe_tells_the_true_rate_and_that_sharing_is_three_times_faster(self, report: dict[str, Any]) -> None:
        assert report["probe"]["rate"] == 1
        assert report["probe of a wrong key"] == 0
        assert report["probe"]["reuse"] >= 3

    def test_the_doctor_names_the_broken_link(self, report: dict[str, Any]) -> None:
        found = {k: v.split(":")[0] for k, v in report["doctor"].items()}
        assert found == {
            "sound": "sound",
            "wrong port": "port",
            "bad permissions": "permissions",
            "missing key": "key",
            "wrong name": "name",
            "tailnet down": "tailnet",
            "no shell": "shell",
            "stopped sshd": "sshd",
        }

    def test_tailscale_gets_exactly_the_declared_flags_once_and_the_key_by_file(self, report: dict[str, Any]) -> None:
        assert report["tailnet applied"] is True
        assert report["tailscale was called"] == ["up --reset --hostname=studio --advertise-tags=tag:lab --ssh"]
        assert report["the key came by file"] == ["tskey-secret", False]
        assert report["tailnet as declared"] == []
        assert report["called once"] == 1


def context(**texts: str) -> Context:
    return Context("access.studio", "/lab", "/lab/state", "/store", texts={f"/lab/{k}": v for k, v in texts.items()})


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl laptop"


def test_a_declaration_that_would_lock_out_is_a_problem() -> None:
    assert "nobody could log in" in str(list(Access(users=["chris"]).check(context())))
    assert "root is among" in str(list(Access(users=["root"], devices={"a": KEY}).check(context())))
    assert "not a public ssh key" in str(list(Access(users=["chris"], devices={"a": "keys/none.pub"}).check(context())))
    assert list(Access(users=["chris"], devices={"a": KEY}).check(context())) == []


def test_the_owners_password_stays_where_filevault_is_unlocked_over_ssh() -> None:
    mac, linux = context(), context()
    mac.host = Host(platform="osx-arm64")
    linux.host = Host(platform="linux-64")
    access = Access(users=["chris"], devices={"a": KEY})
    assert "PasswordAuthentication yes" in access.files(mac)[text.DROP_IN]
    assert "PasswordAuthentication no" in access.files(linux)[text.DROP_IN]
    off = access.with_(sshd={"passwords": False})
    assert "PasswordAuthentication no" in off.files(mac)[text.DROP_IN]
    assert "FileVault cannot be unlocked" in str(off.forecast(Change(Address("access.a"), Action.CREATE), mac).notes)
    assert "FileVault" not in str(access.forecast(Change(Address("access.a"), Action.CREATE), mac).notes)


@pytest.mark.parametrize(
    ("policy", "fault"),
    [
        ('{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]} // fine', ""),
        (
            '{"groups": {"group:me": ["a@b.c"]}, "acls": [{"action": "accept", "src": ["group:me"], "dst": ["*:22",],},],}',  # noqa: E501
            "",
        ),
        ('{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["tcp:22"]}], "tests": []}', ""),
        ('{"acl": []}', "no section is called `acl`"),
        ('{"acls": [{"action": "deny", "src": ["*"], "dst": ["*:*"]}]}', "is not `accept`"),
        ('{"acls": [{"action": "accept", "src": ["group:you"], "dst": ["*:*"]}]}', "`groups` does not have"),
        ('{"acls": [{"action": "accept", "src": ["*"], "dst": ["host"]}]}', "names no port"),
        ('{"ssh": [{"action": "accept", "src": ["*"], "dst": ["tag:lab"]}]}', "lacks users"),
        ("{", "no HuJSON"),
    ],
)
def test_a_tailnet_policy_is_checked(policy: str, fault: str) -> None:
    found = list(text.policy_faults(policy))
    assert found == [] if not fault else any(fault in f for f in found)


def test_tailscale_is_given_every_flag_that_is_not_its_default() -> None:
    t = Tailscale(hostname="studio", tags=("tag:lab",), routes=("10.0.0.0/24",), accept_routes=True, accept_dns=False)
    assert t.flags() == [
        "--hostname=studio", "--advertise-tags=tag:lab", "--advertise-routes=10.0.0.0/24", "--accept-routes", "--accept-dns=false",  # noqa: E501
    ]  # fmt: skip


def test_a_device_is_given_a_config_that_ssh_itself_reads_as_meant(tmp_path: Path) -> None:
    import subprocess

    file = tmp_path / "config"
    file.write_text(text.client("studio", ["studio.ts.net", "10.0.0.5"], "chris", 2222, "~/.ssh/lab", 30))
    said = subprocess.run(["ssh", "-G", "-F", str(file), "studio-2"], capture_output=True, text=True, check=True).stdout
    for line in (
        "hostname 10.0.0.5",
        "user chris",
        "port 2222",
        "controlmaster auto",
        "serveraliveinterval 30",
        "forwardagent no",
    ):
        assert line in said.splitlines()


def test_a_session_that_begins_right_after_a_change_is_younger_than_it() -> None:
    """A second earlier it would be refused as one that began before: the kernel tells its own start no finer."""
    before = time.time()
    with subprocess.Popen(["sleep", "0.1"]) as process:
        assert before - 0.05 <= accesses._began(psutil.Process(process.pid)) <= time.time() + 0.05


def test_a_change_that_was_cut_short_is_not_confirmed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sshd does not go by it yet: its confirmation would say nothing."""
    from lab.core.problem import Problems

    waits = {"word": "w", "at": 0, "until": 9e9, "confirmed": str(tmp_path / "confirmed"), "tried": False}
    monkeypatch.setattr(accesses, "PENDING", tmp_path / "pending")
    (tmp_path / "pending").write_text(json.dumps(waits))
    with pytest.raises(Problems, match="cut short"):
        accesses.confirm(None, here=True)  # type: ignore[arg-type]
    assert not (tmp_path / "confirmed").exists()
    (tmp_path / "pending").write_text(json.dumps({**waits, "tried": True}))
    accesses.confirm(None, here=True)  # type: ignore[arg-type]
    assert (tmp_path / "confirmed").read_text() == "w"
