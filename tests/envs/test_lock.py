"""A lock answers the spec for every platform, moves only what it must, and is read by the tools it is made for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.adapters import conda, envlock, uv
from lab.adapters.channel import index, package
from lab.core.envspec import admits, combine, inputs_digest, moves
from lab.core.envspec import package as name_of
from lab.core.problem import Problems
from lab.core.steps_envs import LockEnv
from tests.envs.stands import FULL, SHORT, Stage, module, spec

BESIDE = Path(sys.executable).parent


def packages(lock: dict[str, Any], platform: str = "linux-64") -> dict[str, str]:
    """What a summary holds for a platform."""
    return dict(lock["platforms"][platform]["packages"])


def test_all_platforms_at_once_with_their_virtual_packages(tmp_path: Path, built: Path) -> None:
    """The macOS version decides what is locked there, and is written down."""
    stage = Stage(tmp_path)
    asked = spec(built, "labprefix", on={"osx-arm64": {"conda": ["labmetal"]}})
    lock = envlock.lock(LockEnv("one", asked), stage)
    assert packages(lock, "osx-arm64")["labmetal"] == "0.30.0"
    assert "labmetal" not in packages(lock)
    newer = {**asked, "virtual_packages": {"osx-arm64": {"__osx": "15.1"}}}
    lock = envlock.lock(LockEnv("two", newer), stage)
    assert packages(lock, "osx-arm64")["labmetal"] == "0.31.0"
    assert lock["virtual_packages"]["osx-arm64"]["__osx"] == "15.1"
    filled = envlock.lock(LockEnv("three", asked, osx="26.1"), stage)
    assert packages(filled, "osx-arm64")["labmetal"] == "0.31.0"


def test_locking_leaves_no_folder_behind(tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """conda-lock keeps its virtual packages in a folder until its process ends, however that ends."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    envlock.lock(LockEnv("one", spec(built, "labprefix")), Stage(tmp_path))
    assert not list(temporary.glob("conda-lock-*"))


def test_relocking_moves_only_what_must_move(tmp_path: Path, built: Path) -> None:
    """S2-9-1: a new requirement moves its own package; newer versions of others wait until they are asked for."""
    mine = tmp_path / "channel"
    shutil.copytree(built, mine)
    next(mine.glob("noarch/labside-1.1*")).unlink()
    for old in mine.glob("noarch/labhello-[12].[1-9]*"):
        old.unlink()
    next(mine.glob("noarch/labhello-2*")).unlink()
    index(mine)
    stage = Stage(tmp_path)
    lock = envlock.lock(LockEnv("one", spec(mine, "labhello", "labside")), stage)
    assert (packages(lock)["labhello"], packages(lock)["labside"]) == ("1.0.0", "1.0")
    for name, version in (("labhello", "1.1.0"), ("labside", "1.1")):
        package(mine, name, version, noarch="python", depends=["python", "labdata"], files=module(name, version))
    index(mine)
    same = envlock.lock(LockEnv("one", spec(mine, "labhello", "labside")), stage)
    assert packages(same) == packages(lock)
    moved = envlock.lock(LockEnv("one", spec(mine, "labhello >=1.1", "labside")), stage)
    assert (packages(moved)["labhello"], packages(moved)["labside"]) == ("1.1.0", "1.0")
    assert envlock.moved(lock, moved) == [f"{p}: labhello 1.0.0 → 1.1.0" for p in ("osx-arm64", "linux-64")]
    updated = envlock.lock(LockEnv("one", spec(mine, "labhello >=1.1", "labside"), update=("labside",)), stage)
    assert packages(updated)["labside"] == "1.1"


def test_an_unsatisfiable_spec_says_why_and_where(tmp_path: Path, built: Path) -> None:
    """The solver's reason and the line of the YAML that asks for it; the lock before stays as it was."""
    stage = Stage(tmp_path)
    conf = tmp_path / "conf" / "env" / "one.yaml"
    conf.parent.mkdir(parents=True)
    conf.write_text("channels: [x]\nconda:\n  - labclash\n  - labhello >=2\n")
    with pytest.raises(Problems) as e:
        envlock.lock(LockEnv("one", spec(built, "labclash", "labhello >=2")), stage)
    found = e.value.problems[0]
    assert "labclash" in found.why
    assert "labhello" in found.why
    assert (found.file, found.line) in (("conf/env/one.yaml", 3), ("conf/env/one.yaml", 4))
    assert not envlock.locks(stage).exists()


@pytest.mark.parametrize(
    ("conda", "said"), [("labhello >=>1", "is no conda requirement"), ("nosuchpackage", "no set of packages")]
)
def test_a_bad_requirement_is_a_problem(tmp_path: Path, built: Path, conda: str, said: str) -> None:
    """What the solver cannot read or find is said in our words, naming it."""
    with pytest.raises(Problems, match=said) as e:
        envlock.lock(LockEnv("one", spec(built, conda)), Stage(tmp_path))
    assert conda.split()[0] in str(e.value)


@pytest.mark.slow
def test_a_channel_out_of_reach_is_told_in_two_lines() -> None:
    """What rattler says of a channel is a chain of causes: the address and the last of them are told."""
    chain = (
        "Request failed after 3 retries\nCaused by: error sending request for url (https://x.example/noarch/r.zst)\n"
        "Caused by: client error (Connect)\nCaused by: dns error\nCaused by: Name or service not known"
    )
    (found,) = conda.explained({"kind": "channel", "why": chain}).problems
    assert found.why == "https://x.example/noarch/r.zst: Name or service not known"
    told = str(conda.explained({"kind": "unsatisfiable", "platform": "linux-64", "why": "a\nb"})).splitlines()
    assert told[1:3] == ["      why a", "          b"]


@pytest.mark.parametrize("text", ["labhello =1.1.*", "labhello >=1.0.0.*,<2", "labhello 1.1.0 0*"])
def test_a_requirement_is_read_as_conda_reads_it(tmp_path: Path, built: Path, text: str) -> None:
    """What rattler calls too loose, and conda has always taken, is taken."""
    lock = envlock.lock(LockEnv("one", spec(built, text, platforms=["linux-64"])), Stage(tmp_path))
    assert packages(lock)["labhello"] == "1.1.0"


def test_conda_lock_and_rattler_read_our_lock(tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DC-6: conda-lock finds its own input hash in our lock and renders it; rattler reads both platforms from it."""
    shutil.copytree(built, tmp_path / "channel")
    stage = Stage(tmp_path)
    envlock.lock(LockEnv("one", spec("./channel", "labhello ==1.1.0", "labprefix")), stage)
    where = envlock.locks(stage)
    fake = tmp_path / "conda"
    fake.write_text("#!/bin/sh\necho conda 24.1.0\n")
    fake.chmod(0o755)
    monkeypatch.setenv("LAB_ROOT", str(tmp_path))
    said = subprocess.run(
        [BESIDE / "conda-lock", "lock", "--check-input-hash", "--conda", fake, "-f", "one.environment.yml",
         "--lockfile", "one.conda-lock.yml", "--virtual-package-spec", "one.virtual-packages.yml"],
        cwd=where, capture_output=True, text=True,
    )  # fmt: skip
    assert "Spec hash already locked for ['linux-64', 'osx-arm64']" in said.stderr + said.stdout, said.stderr
    rendered = subprocess.run(
        [BESIDE / "conda-lock", "render", "-k", "explicit", "-p", "linux-64", "one.conda-lock.yml"],
        cwd=where, capture_output=True, text=True,
    )  # fmt: skip
    assert rendered.returncode == 0, rendered.stderr
    assert f"file://{tmp_path}/channel/noarch/labhello-1.1.0-0.tar.bz2#" in (where / "conda-linux-64.lock").read_text()
    read = (
        "import sys, os, rattler; e = rattler.LockFile.from_path(sys.argv[1]).default_environment();"
        "print(sorted(p.name for p in e.platforms()), flush=True); os._exit(0)"
    )
    said = subprocess.run([sys.executable, "-c", read, where / "one.conda-lock.yml"], capture_output=True, text=True)
    assert said.stdout.strip() == "['linux-64', 'osx-arm64']", said.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("manager", "text"),
    [
        ("pip", "alpha ; sys_platform == 'linux'"),
        ("pip", "Al_pha[x] >=1,<2"),
        ("conda", "conda-forge::numpy >=2,<3"),
        ("conda", "numpy 2.0.* *_cpython"),
        ("conda", "numpy[version='>=2',build=py312*]"),
    ],
)
def test_requirements_are_read_as_conda_lock_reads_them(tmp_path: Path, manager: str, text: str) -> None:
    """conda-lock of which only a part is loaded hashes a spec as the whole of it does: markers, channels, builds."""
    stage = Stage(tmp_path)
    request = {
        "name": "m", "note": "x", "target": str(envlock.locks(stage) / "m.conda-lock.yml"),
        "spec": {"channels": [], "platforms": ["linux-64"],
                 "requirements": {"linux-64": {"conda": [], "pip": [], manager: [text]}}},
        "virtual": {"linux-64": {"__glibc": "2.28"}}, "packages": {"linux-64": {"conda": [], "pip": []}},
    }  # fmt: skip
    conda.write(request)
    ours = yaml.safe_load((envlock.locks(stage) / "m.conda-lock.yml").read_text())["metadata"]["content_hash"]
    code = (
        "import sys, json; from pathlib import Path; from conda_lock.src_parser import make_lock_spec;"
        "from conda_lock.content_hash import compute_content_hashes as h;"
        "from conda_lock.virtual_package import virtual_package_repo_from_specification as v;"
        "Path('map').write_text('{}');"
        "s = make_lock_spec(src_files=[Path('m.environment.yml')], mapping_url='map');"
        "print(json.dumps(h(s, v(Path('m.virtual-packages.yml')))))"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=envlock.locks(stage), capture_output=True, text=True, check=False
    )
    assert yaml.safe_load(said.stdout) == ours, said.stderr


def test_python_packages_are_pinned_to_condas_own(tmp_path: Path) -> None:
    """uv is told which Python packages conda brings, and leaves them out of its own part of the lock."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    wheel(wheels, "alpha", "1.0", "Requires-Dist: beta\n")
    wheel(wheels, "beta", "1.0")
    wheel(wheels, "beta", "2.0")
    found = uv.resolve(
        ["--no-index", f"--find-links {wheels}", "alpha"], "linux-64", SHORT, {"__glibc": "2.28"}, {"beta": "1.0"},
        cache=tmp_path / "cache",
    )  # fmt: skip
    assert [p["name"] for p in found] == ["alpha"]
    assert found[0]["url"].startswith("file://")


def test_the_best_wheel_is_the_installers_choice() -> None:
    """A macOS wheel needs that macOS; of several that fit, the most specific is taken; none is said to be none."""

    def url(tag: str) -> dict[str, str]:
        return {"url": f"https://x/mlx-0.30-{tag}.whl"}

    mac = [url("cp312-cp312-macosx_14_0_arm64"), url("cp312-cp312-macosx_15_0_arm64")]
    best = uv.best_wheel(mac, "osx-arm64", "3.12", {"__osx": "15.1"})
    assert best is not None
    assert "15_0" in best["url"]
    best = uv.best_wheel(mac, "osx-arm64", "3.12", {"__osx": "14.5"})
    assert best is not None
    assert "14_0" in best["url"]
    assert uv.best_wheel(mac, "osx-arm64", "3.12", {"__osx": "13.4"}) is None
    linux = [url("cp312-cp312-manylinux_2_35_x86_64")]
    assert uv.best_wheel(linux, "linux-64", "3.12", {"__glibc": "2.28"}) is None
    assert uv.best_wheel(linux, "linux-64", "3.12", {"__glibc": "2.36"}) == linux[0]


def wheel(folder: Path, name: str, version: str, more: str = "") -> Path:
    """A real wheel with one module."""
    import base64
    import hashlib
    import zipfile

    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": f"__version__ = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [
        f"{n},sha256={base64.urlsafe_b64encode(hashlib.sha256(t.encode()).digest()).rstrip(b'=').decode()},{len(t)}"
        for n, t in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as z:
        for n, t in files.items():
            z.writestr(n, t)
    return path


@pytest.mark.parametrize(
    ("condition", "version", "fits"),
    [
        ("", "1", True), ("==1.1.0", "1.1", True), (">=1,<2", "1.9", True), (">=1,<2", "2.0", False),
        ("1.2.*", "1.20", False),
        ("1.2.*", "1.2.7", True), ("=1.2", "1.2.3", True), ("!=1.2.*", "1.2.3", False), ("~=1.4", "1.9", True),
        ("~=1.4", "2.0", False), ("3.12.* *_cpython", "3.12.1", True), ("| weird", "1", True), (">1.0", "1.0", False),
    ],
)  # fmt: skip
def test_conditions_that_need_no_solver(condition: str, version: str, fits: bool) -> None:
    """Simple conditions are judged; what cannot be judged counts as answered."""
    assert admits(condition, version) is fits


def test_what_a_stale_lock_would_move() -> None:
    """A stale lock says, without a solver, which packages no longer answer."""
    asked = {
        "channels": ["x"],
        "conda": ["numpy >=2"],
        "pip": ["Foo_Bar[x]==2"],
        "python": "3.12",
        "platforms": ["linux-64"],
    }
    locked = {"numpy": "1.26.4", "python": "3.12.1", "foo-bar": "2"}
    assert moves(asked, "linux-64", locked) == ["numpy 1.26.4 → >=2", "pip is new"]
    assert name_of("conda-forge::Foo_Bar[x] >=1") == "foo-bar"
    assert combine({"pip": ["a", "b==1"], "channels": ["x"]}, {"pip": ["B==2"], "channels": ["y"]}) == {
        "pip": ["a", "B==2"],
        "channels": ["y", "x"],
    }
    assert inputs_digest({"conda": ["a"], "variables": {"X": "1"}}) == inputs_digest(
        {"conda": ["a"], "commands": ["x"]}
    )


def test_the_lock_file_is_v1_with_hashes(tmp_path: Path, built: Path) -> None:
    """Every package has its URL and SHA-256, for both platforms, in conda-lock's format v1, in the bytes it writes."""
    stage = Stage(tmp_path)
    envlock.lock(LockEnv("one", spec(built, "labhello ==1.1.0", "labprefix")), stage)
    text = (envlock.locks(stage) / "one.conda-lock.yml").read_text()
    lock = yaml.safe_load(text)
    # As conda-lock calls PyYAML, whose own emitter is ten times slower than libyaml's.
    assert text.endswith(yaml.dump(lock, sort_keys=False))
    assert lock["version"] == 1
    assert {p["platform"] for p in lock["package"]} == {"osx-arm64", "linux-64"}
    assert all(len(p["hash"]["sha256"]) == 64 and p["url"] for p in lock["package"])
    assert ("python", FULL) in {(p["name"], p["version"]) for p in lock["package"]}
    assert os.path.exists(envlock.locks(stage) / "one.virtual-packages.yml")


FIRST = """
import os, sys
from pathlib import Path
from lab.adapters import conda, envlock, envs
from lab.core.steps_envs import LockEnv
from tests.envs.stands import Stage, spec, step_for
started, start = [], conda.Child
conda.Child = lambda environ: started.append(environ) or start(environ)
root, before = Path(sys.argv[1]), dict(os.environ)
envlock.lock(LockEnv("one", spec(sys.argv[2], "labhello ==1.1.0")), Stage(root))
envs.install(step_for(root), Stage(root))
conda.rest()
print(len(started), dict(os.environ) == before)
"""


def test_one_process_serves_the_first_env_of_a_command(tmp_path: Path, built: Path) -> None:
    """What solves also links and hashes; that conda-lock is loaded meanwhile leaves no mark in the environment."""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environ.pop("CONDA_ROOT", None)
    said = subprocess.run([sys.executable, "-c", FIRST, tmp_path, built], env=environ, capture_output=True, text=True)
    assert said.stdout.split() == ["1", "True"], said.stderr


SOLVER = """#!{python}
import json, os, subprocess, sys
args, env = sys.argv[1:], os.environ
json.dump({{"args": args, "env": {{k: v for k, v in env.items() if k.startswith("CONDA_")}}}}, open({log!r}, "w"))
channels = [args[i + 1] for i, a in enumerate(args) if a == "--channel"]
at = max(i for i, a in enumerate(args) if a == "--channel") + 2
platform = env["CONDA_SUBDIR"]
part = {{"specs": args[at:], "virtual": {{"__osx": env.get("CONDA_OVERRIDE_OSX", "0"), "__glibc": "2.28"}}}}
asked = json.dumps({{"do": "solve", "channels": channels, "cache": {cache!r}, "platforms": {{platform: part}}}})
said = subprocess.run([{python!r}, "-m", "lab.adapters.conda_child"], input=asked, capture_output=True, text=True)
answer = json.loads(said.stdout)
if "fault" in answer:
    print(json.dumps({{"success": False, "message": answer["fault"]["why"]}}))
    sys.exit(1)
found = answer["done"][platform]
print(json.dumps({{"success": True, "actions": {{"LINK": found, "FETCH": found}}}}))
"""


@pytest.mark.slow
def test_an_external_solver_is_asked_as_conda_lock_asks(
    tmp_path: Path, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`solver: external` gives the lock that rattler gives, from a program that speaks conda's protocol."""
    solver, log = tmp_path / "conda", tmp_path / "log.json"
    solver.write_text(SOLVER.format(python=sys.executable, log=str(log), cache=str(tmp_path / "cache")))
    solver.chmod(0o755)
    monkeypatch.setenv("LAB_CONDA", str(solver))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    asked = spec(built, "labhello ==1.1.0")
    mine = envlock.lock(LockEnv("one", asked), Stage(tmp_path / "a"))
    theirs = envlock.lock(LockEnv("one", {**asked, "solver": "external"}), Stage(tmp_path / "b"))
    assert mine == theirs
    import json

    said = json.loads(log.read_text())
    assert said["args"][0] == "create"
    assert {"--dry-run", "--json", "--override-channels"} < set(said["args"])
    assert said["env"]["CONDA_SUBDIR"] == "linux-64"
    with pytest.raises(Problems, match="no set of packages"):
        envlock.lock(LockEnv("two", {**spec(built, "nosuch"), "solver": "external"}), Stage(tmp_path / "b"))
    monkeypatch.delenv("LAB_CONDA")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(Problems, match="there is no external solver"):
        envlock.lock(LockEnv("three", {**asked, "solver": "external"}), Stage(tmp_path / "b"))
