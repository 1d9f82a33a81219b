"""A guest's declaration says exactly what root will keep, and what cannot be is a problem before anything is done."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.adapters.ansible import perform
from lab.core import guest_files as text
from lab.core import guest_programs as programs
from lab.core.address import Address
from lab.core.change import Action, Change
from lab.core.host import Host
from lab.core.step import Cancelled, Play
from lab.kinds.guest import Guest
from tests.host.support import Context, Stage

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ann"


def context(**more: Any) -> Context:
    return Context("guest.ann", "/lab", "/lab/state", "/srv/store", home="/home/owner", **more)


def test_keys_carry_every_restriction_and_their_end() -> None:
    (line,) = text.authorized_keys([KEY], "2027-03-01").splitlines()
    assert line == f'restrict,pty,expiry-time="20270301" {KEY}'


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"keys": ["-----BEGIN OPENSSH PRIVATE KEY-----"]}, "a private key"),
        ({"keys": ["keys/none.pub"]}, "neither a public key nor a file"),
        ({"keys": ["ssh-ed25519 AAAAB3NzaC1yc2E ann"]}, "not a public ssh key"),
        ({"keys": [KEY], "account": ""}, ""),
    ],
)
def test_what_is_no_key_is_a_problem(block: dict[str, Any], words: str) -> None:
    found = str(list(Guest(**block).check(context())))
    assert (words in found) if words else found == "[]"


def test_the_store_must_lie_outside_the_owners_home_once_there_is_a_guest() -> None:
    made = {"model.tiny": SimpleNamespace(wanted=lambda c: {"view": "/srv/store/models/tiny"})}
    inside = context(declarations=made)
    inside.store = "/home/owner/lab-store"
    assert "inside your home" in str(list(Guest(keys=[KEY], may=["model.tiny"]).check(inside)))
    assert "inside your home" in str(list(Guest(keys=[KEY]).check(inside)))
    assert list(Guest(keys=[KEY], may=["model.tiny"]).check(context(declarations=made))) == []


def test_rights_follow_what_is_declared_before_it_is_made() -> None:
    made = {"model.tiny": SimpleNamespace(wanted=lambda c: {"view": "/srv/store/models/tiny"})}
    guest = Guest(keys=[KEY], may=["model.tiny", "experiment.e"])
    made["experiment.e"] = SimpleNamespace(wanted=lambda c: {})
    grants = guest.grants(context(declarations=made))
    assert grants == {"/srv/store/models": "enter", "/srv/store": "enter", "/srv/store/models/tiny": "read"}
    assert guest.after == ("model.tiny",)
    assert guest.requires() == ()


def test_a_guest_without_an_end_or_with_a_strange_one_is_seen_by_its_words() -> None:
    assert Guest(keys=[KEY]).wanted(context())["expires"] == "never"
    for day in ("next year", "2027-13-45", "2027-3-1"):
        with pytest.raises(ValueError, match="expected a day"):
            Guest(keys=[KEY], expires=day)
    with pytest.raises(ValueError, match="expected hours"):
        Guest(keys=[KEY], hours="9-18")
    with pytest.raises(ValueError, match="person"):
        Guest(keys=[KEY], person="Ann:0:0")


def test_the_plan_says_what_a_guest_gains_and_which_limits_are_weaker_than_they_read() -> None:
    guest = Guest(
        keys=[KEY], may=["model.tiny"], expires="2030-01-01", limits={"memory": "1GB", "disk": "2GB"},
        hide_processes=True,
    )  # fmt: skip
    change, linux, mac = Change(Address("guest.ann"), Action.CREATE), context(), context()
    mac.host = Host(platform="osx-arm64")
    assert guest.forecast(change, linux).notes == (
        "opens model.tiny until 2030-01-01",
        "limits.disk is looked at every half minute, not at each write",
    )
    found = guest.forecast(change, mac).notes
    for words in ("limits.memory", "account expiry", "other people's processes"):
        assert any(words in note for note in found)


@pytest.mark.parametrize("made", [programs.session(), programs.start(), programs.client(), programs.profile()[1]])
def test_the_programs_of_guests_are_sound_shell(made: str, tmp_path: Path) -> None:
    (tmp_path / "program").write_text(made)
    assert subprocess.run(["bash", "-n", str(tmp_path / "program")]).returncode == 0


def test_an_experiment_is_opened_only_with_what_it_needs() -> None:
    needs = SimpleNamespace(
        wanted=lambda c: {}, env="env.good", models={"base": "model.tiny"}, datasets={}, secrets={"T": "env:TOKEN"}
    )
    inside = SimpleNamespace(wanted=lambda c: {"link": "/lab/state/envs/good"})
    beside = SimpleNamespace(wanted=lambda c: {"link": "/srv/store/envs/good"})
    found = str(list(Guest(keys=[KEY], may=["experiment.e"]).check(context(declarations={"experiment.e": needs}))))
    assert "needs env.good" in found
    assert "needs model.tiny" in found
    assert "uses secrets" in found
    made = {"env.good": inside}
    assert "guests may not enter" in str(list(Guest(keys=[KEY], may=["env.good"]).check(context(declarations=made))))
    made = {"env.good": beside}
    assert list(Guest(keys=[KEY], may=["env.good"]).check(context(declarations=made))) == []
    assert Guest(keys=[KEY], may=["env.good"]).grants(context(declarations=made)) == {
        "/srv/store": "enter",
        "/srv/store/envs": "enter",
        "/srv/store/envs/.made": "enter",
        "/srv/store/envs/.made/good": "read",
    }


def test_a_cancelled_run_ends_ansible_and_leaves_nothing(tmp_path: Path) -> None:
    import psutil

    (tmp_path / "state").mkdir()
    stage = Stage("guest.ann", tmp_path, tmp_path / "state", tmp_path / "store", cancelled=True)
    (play,) = Guest(keys=[KEY]).steps(Change(Address("guest.ann"), Action.CREATE), context())
    assert isinstance(play, Play)
    with pytest.raises(Cancelled):
        perform([play], [stage], check=True)
    assert list(stage.scratch.iterdir()) == []
    for _ in range(40):
        mine = [p for p in psutil.Process().children(recursive=True) if str(tmp_path) in " ".join(p.cmdline())]
        if not mine:
            break
        time.sleep(0.1)
    assert mine == []


def test_text_in_a_declaration_is_never_run_as_a_template(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    stage = Stage("guest.ann", tmp_path, tmp_path / "state", tmp_path / "store")
    guest = Guest(keys=[KEY], message="{{ lookup('pipe', 'touch " + str(tmp_path / "ran") + "') }}")
    (play,) = guest.steps(Change(Address("guest.ann"), Action.CREATE), context())
    assert isinstance(play, Play)
    perform([play], [stage], check=True)
    assert any("wrote /etc/lab/guests/ann/guide" in line for line in stage.said), stage.said
    assert not (tmp_path / "ran").exists()
