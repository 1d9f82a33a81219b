"""Cards are given out like memory: each to one run at a time, which sees it alone; `lab gpus` shows whose each is.

The cards are fake, the library that tells of them is not: it is compiled, and loaded where NVIDIA's would be.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.runs.cards import metal
from lab.runs.folder import RunFolder
from tests.sweeps.conftest import Place
from tests.sweeps.test_admitted import states, until

HERE = Path(__file__).parent
CC = shutil.which("cc")
needs_cc = pytest.mark.skipif(not CC or os.uname().sysname != "Linux", reason="needs a C compiler, and Linux's loader")

HOLD = """
import os, sys, time
open("seen", "a").write(os.environ.get("CUDA_VISIBLE_DEVICES", "all") + "\\n")
print("loss=1", flush=True)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end and not os.path.exists("enough"):
    time.sleep(0.05)
"""


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the fake NVML, and of the library that gives a host another name."""
    folder = tmp_path_factory.mktemp("nvml")
    for source, name in (("fake_nvml.c", "libnvidia-ml.so.1"), ("fake_host.c", "host.so")):
        subprocess.run([str(CC), "-shared", "-fPIC", "-o", str(folder / name), str(HERE / source)], check=True)
    return folder


@pytest.fixture
def cards(place: Place, libraries: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A host of two cards, and an experiment that asks for one."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries))
    monkeypatch.setenv("FAKE_NVML", str(place.root / "cards"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    place.write("cards", "Tesla-T4 16000 1200 35 61 42500\nTesla-T4 16000 3 0 30 9000\n")
    place.write("hold.py", HOLD)
    hold = {"command": ["{python}", "-S", "-E", "hold.py", "{seconds}"], "patterns": {"loss": r"loss=(\S+)"}}
    hold |= {"params": {"seconds": 60.0}, "metrics": ["loss"], "when": "manual", "code": ["hold.py"], "sample": 0.1}
    place.write("conf/experiment/hold.yaml", {**hold, "resources": {"cards": 1}})
    place.write("conf/experiment/pair.yaml", {**hold, "resources": {"cards": 2}})
    place.write("conf/experiment/trio.yaml", {**hold, "resources": {"cards": 3}})
    return place


def begun(place: Place, *words: str) -> str:
    """The run that begins, or waits, in the background."""
    return place.lab("run", *words, "--detach").split()[0]


def running(place: Place, *names: str) -> Callable[[], bool]:
    """Whether all of them run."""
    return lambda: all(RunFolder(place.state / "runs" / n).read("process.json").get("child") for n in names)


@needs_cc
def test_both_cards_are_shown_with_use_memory_and_temperature(cards: Place) -> None:
    """S2-3.2-2: what the library tells of each card, now and after it changed."""
    said = cards.lab("gpus")
    assert re.search(r"0 +Tesla-T4 +35 % +1.3 GB of 16.8 GB +61 °C +42 W +free", said), said
    assert re.search(r"1 +Tesla-T4 +0 % +3.1 MB of 16.8 GB +30 °C +9 W +free", said), said
    assert "2 cards: 0 used, 2 free." in said
    cards.write("cards", "H100 80000 70000 99 77 690000\n")
    (host,) = json.loads(cards.lab("gpus", "--json"))
    (one,) = host["cards"]
    assert (one["card"]["busy"], one["card"]["heat"], one["card"]["used"]) == (99, 77, 70000 << 20)


@needs_cc
def test_two_runs_get_different_cards_and_a_third_waits_for_one(cards: Place) -> None:
    """S4-2.2.1-6: each sees its own card alone and its figures are a series on the run; a third waits."""
    first, second = begun(cards, "hold"), begun(cards, "hold", "seed=2")
    until(running(cards, first, second))
    third = begun(cards, "hold", "seed=3")
    until(lambda: RunFolder(cards.state / "runs" / third).state() == "queued")
    said = cards.lab("queue")
    assert "0 of 2 cards are free beside" in said
    assert f"run {third} waits for 1 card: 0 of 2 cards are free" in cards.lab("status")
    until(lambda: sorted((cards.root / "seen").read_text().split()) == ["0", "1"])
    cards.write("enough", "")
    until(lambda: set(states(cards).values()) == {"finished"})
    given = {n: RunFolder(cards.state / "runs" / n).read("process.json")["cards"] for n in (first, second)}
    assert sorted(given.values()) == [["0"], ["1"]]
    for name, (card,) in given.items():
        points = list(RunFolder(cards.state / "runs" / name).metrics("system.jsonl"))
        busy = [f[f"system/gpu_{card}_utilization_percentage"] for _, _, f in points]
        assert len(busy) > 1
        assert set(busy) == ({35.0} if card == "0" else {0.0})
        assert f"system/gpu_{1 - int(card)}_utilization_percentage" not in points[0][2]
    assert "2 cards: 0 used, 2 free." in cards.lab("gpus")


@needs_cc
def test_a_program_whose_supervisor_is_gone_keeps_its_cards(cards: Place) -> None:
    """Its run is unsupervised, and goes on: nobody else is given the cards before it has ended."""
    first = begun(cards, "pair")
    until(running(cards, first))
    process = RunFolder(cards.state / "runs" / first).read("process.json")
    os.kill(process["supervisor"]["pid"], signal.SIGKILL)
    second = begun(cards, "hold", "seed=2")
    until(lambda: f"0 of 2 cards are free beside {first}" in cards.lab("queue"))
    assert RunFolder(cards.state / "runs" / first).state() == "unsupervised"
    assert "2 cards: 2 used, 0 free." in cards.lab("gpus")
    os.killpg(process["child"]["pid"], signal.SIGKILL)
    until(running(cards, second))
    cards.lab("stop", second)


@needs_cc
def test_a_pool_of_two_hosts_shows_what_is_free_and_used(cards: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """S4-2.2.5-1: two hosts with two cards each share the lab's state; after a job on each, two of four are free."""
    runs = {}
    for host in ("north", "south"):
        monkeypatch.setenv("FAKE_HOST", host)
        monkeypatch.setenv("LD_PRELOAD", str(Path(os.environ["LD_LIBRARY_PATH"]) / "host.so"))
        cards.lab("gpus")
        runs[host] = begun(cards, "hold", f"seed={len(runs)}")
        until(running(cards, runs[host]))
    said = cards.lab("gpus")
    assert "4 cards: 2 used, 2 free." in said, said
    for host, run in runs.items():
        assert re.search(rf"{host} +0 +Tesla-T4 .* {run}$", said, re.MULTILINE), said
        assert re.search(rf"{host} +1 +Tesla-T4 .* free$", said, re.MULTILINE), said
    cards.write("enough", "")
    until(lambda: set(states(cards).values()) == {"finished"})
    monkeypatch.setenv("FAKE_HOST", "north")
    until(lambda: "4 cards: 0 used, 4 free." in cards.lab("gpus"))


@needs_cc
def test_the_higher_priority_begins_first_and_a_short_one_fills_the_gap(cards: Place) -> None:
    """With real runs: `pair` waits for both cards until `hold` ends; a short one passes it, a higher one goes first."""
    first = begun(cards, "hold", "timeout=300")
    until(running(cards, first))
    pair = begun(cards, "pair")
    until(lambda: RunFolder(cards.state / "runs" / pair).state() == "queued")
    long = begun(cards, "hold", "seed=2", "timeout=900")
    until(lambda: RunFolder(cards.state / "runs" / long).state() == "queued")
    short = begun(cards, "hold", "seed=3", "timeout=100")
    until(running(cards, short))
    said = cards.lab("queue")
    assert "came first and waits for 2 cards, expected at" in said, said
    assert "this one would delay it" not in said  # there is no card free for it now
    urgent = begun(cards, "hold", "seed=4", "--priority", "5")
    until(lambda: RunFolder(cards.state / "runs" / urgent).state() == "queued")
    rows = [line.split() for line in cards.lab("queue").splitlines() if " 5 " in line or " 0 " in line]
    waiting = [row[1] for row in rows if row[0] == "·"]
    assert waiting == [urgent, pair, long]
    cards.lab("stop", first)
    until(running(cards, urgent))
    assert not running(cards, pair)()
    for name in (short, urgent, pair, long):
        cards.lab("stop", name)


@needs_cc
def test_what_no_host_could_give_is_refused_at_once(cards: Place) -> None:
    """Three cards of two are a problem with both numbers, not an endless wait; nothing is left in the queue."""
    said = cards.lab("run", "trio", "--detach", code=1)
    assert "asks for 3 cards, more than this host has" in said
    assert "`lab gpus` shows 2" in said
    assert "Nothing runs or waits" in cards.lab("queue")


@needs_cc
def test_the_cards_that_the_environment_leaves_are_all_there_is(cards: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Lab itself was given one card, its runs share that one."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    run = begun(cards, "hold")
    until(running(cards, run))
    until(lambda: (cards.root / "seen").exists() and (cards.root / "seen").read_text() == "1\n")
    assert "asks for 2 cards, more than this host has" in cards.lab("run", "pair", "--detach", code=1)
    cards.lab("stop", run)


@needs_cc
def test_a_quota_is_refused_with_numbers_and_resets(cards: Place) -> None:
    """S4-2.2.5-3: GPU-hours are checked when a run is submitted, slots when it would begin, disk at both."""
    place_quotas(cards, {"user.*": {"gpu_hours": 2, "slots": 1}, "project.big": {"disk": "1 MB"}})
    said = cards.lab("run", "hold", "timeout=10800", "--detach", code=1)
    assert "over the quota of user." in said
    assert "has used 0 of 2 GPU-hours, and it is expected to take 3" in said
    first = begun(cards, "hold")
    until(running(cards, first))
    second = begun(cards, "hold", "seed=2")
    until(lambda: "runs 1 of 1 at once" in cards.lab("queue"))
    cards.write("enough", "")
    until(lambda: set(states(cards).values()) == {"finished"})
    (usage,) = cards.state.glob("usage-*.json")
    days = json.loads(usage.read_text())
    ((user, _),) = list(days.values())[-1].items()
    seconds = sum(held[user][0] for held in days.values())
    took = sum(RunFolder(cards.state / "runs" / n).result["seconds"] for n in (first, second))
    assert seconds == pytest.approx(took, abs=2.0)
    usage.write_text(json.dumps({datetime.date.today().isoformat(): {user: [3 * 3600, 0]}}))
    assert "has used 3 of 2 GPU-hours" in cards.lab("run", "hold", "--detach", code=1)
    assert f"{user}: 3 of 2 GPU-hours until" in cards.lab("queue")
    usage.write_text(json.dumps({"2020-01-31": {user: [3 * 3600, 0]}}))  # of a period that is over
    assert cards.lab("run", "hold", "seed=4")
    cards.lab("run", "hold", "seed=5", "project=big")
    (big,) = (p for p in (cards.state / "runs").iterdir() if RunFolder(p).spec["project"] == "big")
    (big / "outputs" / "checkpoint").write_bytes(bytes(2 << 20))
    said = cards.lab("run", "hold", "seed=6", "project=big", "--detach", code=1)
    assert re.search(r"the runs of project.big hold 2.1 MB of 1.0 MB on disk", said), said


@needs_cc
def test_a_quota_that_is_no_quota_is_a_problem_with_its_line(cards: Place) -> None:
    """An account is a user's or a project's, and a key that is none is told."""
    place_quotas(cards, {"ann": {"slots": 1}})
    assert "conf/lab.yaml" in cards.lab("validate", code=1)
    place_quotas(cards, {"user.ann": {"slot": 1}})
    assert "did you mean `slots`" in cards.lab("validate", code=1)


def place_quotas(place: Place, quotas: dict[str, Any]) -> None:
    """The lab's head with these quotas."""
    import yaml

    head = yaml.safe_load((place.root / "conf/lab.yaml").read_text())
    place.write("conf/lab.yaml", {**head, "lab": {**head["lab"], "quotas": quotas}})


def test_the_accelerator_of_a_mac_is_a_card() -> None:
    """Its driver's own words, as `ioreg` prints them."""
    said = (
        '+-o AGXAcceleratorG15X  <class AGXAcceleratorG15X, id 0x100000a7d>\n  {\n    "model" = "Apple M3 Ultra"\n'
        '    "PerformanceStatistics" = {"In use system memory (driver)"=0,"Alloc system memory"=5111808000,'
        '"Device Utilization %"=14,"In use system memory"=652689408}\n  }'
    )
    (card,) = metal(said, "549755813888")
    assert (card.name, card.busy, card.used, card.memory) == ("Apple M3 Ultra", 14, 652689408, 512 << 30)
    assert metal("", "549755813888") == []
