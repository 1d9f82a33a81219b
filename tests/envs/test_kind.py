"""The kind: declared in YAML, through plan and apply of the whole engine, and back to nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lab.adapters import container
from lab.app import env as verbs
from lab.app.apply import apply
from lab.app.lab import Lab
from lab.app.lock import lock
from lab.app.plan import plan
from lab.core.change import Action
from lab.core.problem import Problems
from lab.core.world import Depth
from tests.envs.stands import SHORT

ONE = f"""channels: [./channel]
python: "{SHORT}"
conda:
  - labhello ==1.1.0
variables: {{GREETING: hello there}}
commands: ["python -c 'import labhello'"]
"""


def lab_at(root: Path, **envs: str) -> Lab:
    """A lab with these env files."""
    (root / "conf" / "env").mkdir(parents=True, exist_ok=True)
    (root / "conf" / "lab.yaml").write_text(f"lab: {{name: t, id: 00000000-envs, store: {root}/store}}\n")
    for name, text in envs.items():
        (root / "conf" / "env" / f"{name}.yaml").write_text(text)
    return Lab.find(root)


def done(lab: Lab) -> list[str]:
    """What an apply does, as `action address`; every problem raised."""
    found = apply(Lab.find(lab.root), approve=lambda p: True)
    problems = [p for r in found.results.values() for p in r.problems]
    if problems:
        raise Problems(*problems)
    return [f"{c.action} {c.address}" for c in found.plan.changes if c.action is not Action.NONE]


def test_from_yaml_to_a_running_env_and_back_to_nothing(tmp_path: Path, built: Path) -> None:
    """S0-US-001-1, DC-6, S2-3.2-5: lock, apply, no changes, tamper, drift, repair, bump with versions, destroy."""
    shutil.copytree(built, tmp_path / "channel")
    lab = lab_at(tmp_path, one=ONE)
    assert [o.address for o in lock(lab)] == ["env.one"]
    assert done(lab) == ["create env.one"]
    assert done(lab) == []
    said = subprocess.run(
        [sys.executable, "-m", "lab", "-C", tmp_path, "env", "run", "one", "--", "printenv", "GREETING"],
        capture_output=True, text=True,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert (said.returncode, said.stdout) == (0, "hello there\n"), said.stderr

    prefix = Path(verbs.standing(Lab.find(tmp_path), verbs.find(lab, "one"))["prefix"])
    victim = prefix / "lib" / f"python{SHORT}" / "site-packages" / "labhello" / "__init__.py"
    victim.write_text("broken = True\n")
    drift = plan(Lab.find(tmp_path), depth=Depth.FILES).changes[0].drift
    assert [d.field for d in drift] == [f"files.{victim.relative_to(prefix)}", "state"]
    assert "labhello 1.1.0" in str(drift[0].after)
    assert done(lab) == ["update env.one"]
    assert "broken" not in victim.read_text()
    assert done(lab) == []

    lab = lab_at(tmp_path, one=ONE.replace("==1.1.0", ">=2"))
    (change,) = plan(lab).changes
    assert change.action is Action.UPDATE
    assert change.forecast.notes == (
        "the lock is stale: labhello 1.1.0 → >=2; `lab lock env.one` brings it up to date",
    )
    moves = {d.field: d.after for o in lock(lab) for d in o.moved}
    assert moves["platforms.linux-64.packages.labhello"] == "2.0.0"
    (change,) = plan(Lab.find(tmp_path)).changes
    moved = {d.field: (d.before, d.after) for d in change.fields}
    assert moved["packages.labhello"] == ("1.1.0", "2.0.0")
    assert done(lab) == ["update env.one"]
    assert done(lab) == []

    (tmp_path / "conf" / "env" / "one.yaml").unlink()
    assert done(lab) == ["destroy env.one"]
    assert not (tmp_path / "state" / "envs").exists()
    assert plan(Lab.find(tmp_path)).changes == ()


def test_what_one_platform_asks_for_is_written_under_a_bare_on(tmp_path: Path, built: Path) -> None:
    """`on:` needs no quotes, though YAML 1.1 reads that word as true; only that platform gets the package."""
    shutil.copytree(built, tmp_path / "channel")
    lab = lab_at(tmp_path, one=ONE + "on:\n  osx-arm64: {conda: [labprefix]}\n")
    assert [o.problems for o in lock(lab)] == [()]
    held = {p: set(part["packages"]) for p, part in (Lab.find(tmp_path).context(verbs.find(lab, "one")).lock or {})
            ["platforms"].items()}  # fmt: skip
    assert "labprefix" in held["osx-arm64"] - held["linux-64"]
    with pytest.raises(Problems, match=r"unknown key `nosuch` in env\.one\.on\.osx-arm64"):
        _ = lab_at(tmp_path, one=ONE + "on:\n  osx-arm64: {nosuch: [labprefix]}\n").declarations


@pytest.mark.parametrize(
    ("more", "line", "said"),
    [("python: '2.6'", 3, "python"), (f"python: '{SHORT}'\npip: [six]", 4, "add a channel that has `pip`")],
)
def test_what_a_key_asks_for_is_told_at_its_line(tmp_path: Path, built: Path, more: str, line: int, said: str) -> None:
    """A Python that no channel has is told at `python:`, conda's own pip at `pip:`, with how to mend it."""
    lab = lab_at(tmp_path, one=f"description: on its own\nchannels: [{built}]\n{more}\n")
    (problem,) = next(o.problems for o in lock(lab))
    assert (problem.file, problem.line) == ("conf/env/one.yaml", line)
    assert said in f"{problem.why} {problem.do}"


def test_a_channel_that_is_not_there_is_told_at_its_line(tmp_path: Path) -> None:
    """A folder that is none is a problem at `channels:`."""
    (problem,) = next(o.problems for o in lock(lab_at(tmp_path, one=f"python: '{SHORT}'\nchannels: [./nowhere]\n")))
    assert (problem.file, problem.line) == ("conf/env/one.yaml", 2)
    assert "nowhere is not there" in problem.summary


def test_what_is_wrong_is_said_before_anything_is_done(tmp_path: Path, built: Path) -> None:
    """Mistakes in an env's YAML are problems with their line, all before anything is done."""
    cases = {
        "python: 3.10\nchannels: [x]\n": "write the version in quotes",
        'conda: [numpy]\npython: "3.12"\n': "conda packages are asked for, and no channel",
        'python: "3.12"\nplatforms: [osx-arm64]\n': "it is declared for osx-arm64, and this host is linux-64",
        'python: "3.12"\nplatforms: [linux-64, win-32]\n': "win-32 cannot be locked",
        "template: nosuch\n": "there is no template nosuch",
        'python: "3.12"\npip: [">=1"]\n': "names no package",
        "description: nothing\n": "it has neither channels nor a python",
    }
    for n, (text, said) in enumerate(cases.items()):
        root = tmp_path / str(n)
        with pytest.raises(Problems, match=said) as e:
            _ = lab_at(root, one=text).declarations
        assert e.value.problems[0].file == "conf/env/one.yaml"
        assert e.value.problems[0].line


def test_a_lock_edited_by_hand_is_a_problem(tmp_path: Path, built: Path) -> None:
    """The committed lock must be the one whose summary stands beside it."""
    lab = lab_at(tmp_path, one=ONE.replace("./channel", str(built)))
    lock(lab)
    path = tmp_path / "conf" / "lock" / "env" / "one.conda-lock.yml"
    path.write_text(path.read_text().replace("1.1.0", "2.0.0"))
    with pytest.raises(Problems, match="is not the file that was locked"):
        _ = Lab.find(tmp_path).declarations
    path.write_text(path.read_text().replace("2.0.0", "1.1.0"))
    summary = path.with_name("one.yaml")
    held = yaml.safe_load(summary.read_text())
    del held["platforms"]["linux-64"]
    summary.write_text(yaml.safe_dump(held))
    with pytest.raises(Problems, match="the lock has nothing for linux-64"):
        _ = Lab.find(tmp_path).declarations


def test_extends_and_templates_are_laid_on_each_other(tmp_path: Path, built: Path) -> None:
    """S0-US-001-4: an env starts from a template or another env; its own requirements replace theirs by package."""
    lab = lab_at(
        tmp_path,
        base=f'channels: [{built}]\npython: "{SHORT}"\nconda: [labhello ==1.1.0, labside]\n'
        'variables: {A: "1", B: "1"}\n',
        more="extends: base\nconda: [labhello ==2.0.0]\nvariables: {B: '2'}\n",
        tuned="template: finetune\npip: [datasets==4.0.0]\n",
    )
    more: object = lab.declarations[verbs.find(lab, "more")].spec(lab.context("env.more"))  # type: ignore[attr-defined]
    assert more["conda"] == ["labside", "labhello ==2.0.0"]  # type: ignore[index]
    assert more["variables"] == {"A": "1", "B": "2"}  # type: ignore[index]
    tuned = lab.declarations[verbs.find(lab, "tuned")].spec(lab.context("env.tuned"))  # type: ignore[attr-defined]
    assert tuned["python"] == "3.11"
    assert tuned["pip"] == ["mlx-lm==0.32.2", "safetensors", "datasets==4.0.0"]
    assert tuned["virtual_packages"]["osx-arm64"] == {"__osx": "15.0"}
    assert "base" in [a.name for a in lab.declarations[verbs.find(lab, "more")].requires()]


def test_secrets_reach_the_process_and_nothing_else(
    tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2-3.2-5: a secret variable is read when something runs; no file of the lab ever holds its value."""
    monkeypatch.setenv("OUTER", "s3cr3t-value")
    text = ONE.replace("./channel", str(built)) + "secrets: {TOKEN: env:OUTER}\n"
    lab = lab_at(tmp_path, one=text)
    lock(lab)
    done(lab)
    lab = Lab.find(tmp_path)
    code = "import os, sys; sys.exit(0 if os.environ['TOKEN'] == 's3cr3t-value' and 'OUTER' not in os.environ else 1)"
    assert verbs.run(lab, "one", ["python", "-c", code]) == 0
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert not [p for p in files if b"s3cr3t-value" in p.read_bytes()]


def test_every_export_is_read_by_the_tool_it_is_for(tmp_path: Path, built: Path) -> None:
    """S0-US-001-3: rattler, uv and a TOML reader take what is exported; the packages are those locked."""
    import tomllib

    from lab.adapters import envexport, uv

    here = ONE.replace("./channel", str(built))
    lab = lab_at(tmp_path, one=here, two=here.replace("==1.1.0", ">=2"))
    lock(lab)
    lab = Lab.find(tmp_path)
    assert verbs.diff(lab, "one", "two") == [("labhello", "1.1.0", "2.0.0")]
    file = tmp_path / "one.conda-lock.yml"
    file.write_text(verbs.export(lab, "one", "conda-lock"))
    read = (
        "import sys, os, rattler; e = rattler.LockFile.from_path(sys.argv[1]).default_environment();"
        "p = next(p for p in e.platforms() if p.name == 'linux-64');"
        "print(*sorted(r.url for r in e.conda_repodata_records_for_platform(p)), flush=True); os._exit(0)"
    )
    said = subprocess.run([sys.executable, "-c", read, file], capture_output=True, text=True)
    explicit = verbs.export(lab, "one", "explicit").splitlines()
    urls = {line.partition("#")[0] for line in explicit if line.startswith("file:")}
    assert set(said.stdout.split()) == urls, said.stderr
    subprocess.run(
        [Path(sys.executable).with_name("conda-lock"), "render", "-k", "explicit", "-p", "linux-64", file],
        cwd=tmp_path, capture_output=True, check=True,
    )  # fmt: skip
    rendered = (tmp_path / "conda-linux-64.lock").read_text().splitlines()
    assert {x for x in rendered if x.startswith("file:")} == {x for x in explicit if x.startswith("file:")}
    pixi = tomllib.loads(verbs.export(lab, "one", "pixi"))
    assert pixi["dependencies"]["labhello"] == "==1.1.0"
    assert pixi["workspace"]["platforms"] == ["osx-arm64", "linux-64"]
    assert "  - labhello=1.1.0=0" in verbs.export(lab, "one", "environment.yml")
    with pytest.raises(Problems, match="did you mean `pylock`"):
        verbs.export(lab, "one", "pylok")

    from tests.envs.test_lock import wheel

    path = wheel(tmp_path, "alpha", "1.0")
    import hashlib

    one = {"name": "alpha", "version": "1.0", "manager": "pip", "platform": "linux-64", "url": path.as_uri(),
           "hash": {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}}  # fmt: skip
    parsed = {"package": [one], "metadata": {"channels": [], "platforms": ["linux-64"]}}
    uv.venv(tmp_path / "venv", "host")
    for form, name in (("pylock", "pylock.toml"), ("requirements", "requirements.txt")):
        file = tmp_path / name
        file.write_text(envexport.OF_PLATFORM[form](parsed, "linux-64"))
        hashes = ["--require-hashes"] if form == "requirements" else []
        rc, _, err = uv.call("pip", "install", "--dry-run", "--python", str(tmp_path / "venv/bin/python"), "--no-index",
                             *hashes, "-r", str(file))  # fmt: skip
        assert rc == 0, err
        assert "alpha" in err


def test_listing_says_the_state_of_each(tmp_path: Path, built: Path) -> None:
    """`lab env list` knows what is not locked, not installed, intact; the page names every package."""
    lab = lab_at(tmp_path, one=ONE.replace("./channel", str(built)))
    assert [line.state for line in verbs.listing(lab)] == ["not locked"]
    lock(lab)
    assert [line.state for line in verbs.listing(Lab.find(tmp_path))] == ["not installed"]
    done(lab)
    lab = Lab.find(tmp_path)
    (line,) = verbs.listing(lab)
    assert (line.state, line.packages) == ("intact", 4)
    assert "| labhello | 1.1.0 | 1.1.0 |" in verbs.page(lab, "one")
    with pytest.raises(Problems, match="there is no env `on` — did you mean `one`"):
        verbs.run(lab, "on", ["true"])
    with pytest.raises(Problems, match=r"cannot be run in env\.one"):
        verbs.run(lab, "one", ["no-such-program"])


def test_planning_imports_no_solver(tmp_path: Path, built: Path) -> None:
    """`lab plan` of installed envs loads neither rattler nor conda-lock nor uv."""
    lab = lab_at(tmp_path, one=ONE.replace("./channel", str(built)))
    lock(lab)
    done(lab)
    code = (
        "import sys, json; from pathlib import Path; from lab.app.lab import Lab; from lab.app.plan import plan;"
        f"p = plan(Lab.find(Path({str(tmp_path)!r}))); print(json.dumps([len(p.changes), sorted(sys.modules)]))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    _, modules = json.loads(said.stdout)
    assert not {"rattler", "conda_lock", "uv"} & set(modules)


def test_a_containerfile_follows_the_lock(tmp_path: Path, built: Path) -> None:
    """S0-4.1-4 (the file): made from the same lock, kept up to date, removed with the env."""
    text = ONE.replace("./channel", str(built)) + "container: images/one.Containerfile\n"
    lab = lab_at(tmp_path, one=text)
    lock(lab)
    done(lab)
    path = tmp_path / "images" / "one.Containerfile"
    body = path.read_text()
    digest = Lab.find(tmp_path).context("env.one").lock["platforms"]["linux-64"]["digest"]  # type: ignore[index]
    assert body.startswith(f"# lock: {digest}\n")
    assert f"{built.as_uri()}/noarch/labhello-1.1.0-0.tar.bz2#" in body
    assert f" -v {built}:{built}:ro -f THIS_FILE" in body
    assert "RUN micromamba install" in body
    assert done(lab) == []
    path.write_text("FROM scratch\n")
    assert [d.field for d in plan(Lab.find(tmp_path)).changes[0].drift] == ["container"]
    assert done(lab) == ["update env.one"]
    assert path.read_text() == body
    (tmp_path / "conf" / "env" / "one.yaml").unlink()
    done(lab)
    assert not path.exists()


def test_a_channel_of_the_repository_is_brought_into_the_image(tmp_path: Path, built: Path) -> None:
    """The Containerfile names no place of this machine, copies the channel in, and reads it where it was copied to."""
    shutil.copytree(built, tmp_path / "channel")
    lab = lab_at(tmp_path, one=ONE + "container: one.Containerfile\n")
    lock(lab)
    done(lab)
    lines = (tmp_path / "one.Containerfile").read_text().splitlines()
    assert "COPY ./channel /lab/channel" in lines
    archives = [x.strip(" '\\").partition("#")[0] for x in lines if x.startswith("    'file://")]
    assert archives
    for url in archives:
        assert url.startswith("file:///lab/channel/")
        assert (tmp_path / url.removeprefix("file:///lab/")).is_file()
    assert str(tmp_path) not in "\n".join(lines)


def test_an_image_has_the_python_that_was_locked_for() -> None:
    """`python: host` is locked for the oldest Python Lab runs on, and so is the image."""
    lock = {"metadata": {"channels": []}, "package": []}
    summary = {"python": "host", "platforms": {"linux-64": {"digest": "d"}}}
    assert "FROM docker.io/library/python:3.11-slim\n" in container.text("x", lock, summary, "linux-64")


@pytest.mark.slow
def test_ten_contradicting_envs_in_one_apply(tmp_path: Path, built: Path) -> None:
    """S0-7.1-3: ten envs whose packages contradict each other are made at once, each sound, each its own."""
    hello, side = ("1.0.0", "1.1.0", "2.0.0"), ("1.0", "1.1")
    asked = {f"e{n}": (hello[n % 3], side[n % 2]) for n in range(10)}
    texts = {
        name: f'channels: [{built}]\npython: "{SHORT}"\nconda: [labhello =={a}, labside =={b}]\n'
        f"commands: [\"python -c 'import labhello as a, labside as b; assert (a.__version__, b.__version__) == "
        f'(\\"{a}\\", \\"{b}\\")\'"]\n'
        for name, (a, b) in asked.items()
    }
    lab = lab_at(tmp_path, **texts)
    assert len(lock(lab)) == 10
    assert len(done(lab)) == 10
    assert done(lab) == []
    lab = Lab.find(tmp_path)
    assert [line.state for line in verbs.listing(lab)] == ["intact"] * 10
    digests = {line.content_digest for line in verbs.listing(lab)}
    assert len(digests) == len(set(asked.values()))


def test_envs_live_where_lab_yaml_says(tmp_path: Path, built: Path) -> None:
    """`lab.envs` moves all envs: they are made there, and the ones made elsewhere are removed."""
    lab = lab_at(tmp_path, one=ONE.replace("./channel", str(built)))
    lock(lab)
    done(lab)
    head = tmp_path / "conf" / "lab.yaml"
    head.write_text(head.read_text().replace("{name", f"{{envs: {tmp_path}/elsewhere, name"))
    done(lab)
    assert (tmp_path / "elsewhere" / "one" / "bin" / "python").exists()
    assert not (tmp_path / "state" / "envs").exists()
    assert done(lab) == []
