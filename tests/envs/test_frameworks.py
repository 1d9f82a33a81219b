"""A framework is found where it lives, and its smoke test really runs there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lab.adapters import frameworks as tool
from lab.app import frameworks
from lab.app.lab import Lab
from lab.app.lock import lock
from lab.app.plan import plan
from lab.core.change import Action
from lab.core.frameworks import KNOWN, issues
from lab.core.problem import Problems
from lab.core.steps_envs import TestFramework
from tests.engines import make
from tests.envs.test_kind import done
from tests.labs import TestLab

AGENTS = ("openai", "langchain", "llama_index", "autogen", "crewai")
HEAD = "lab: {name: t, id: 00000000-envs, store: ROOT/store}\n"


def lab_at(root: Path, **declared: str) -> Lab:
    """A lab with these frameworks."""
    (root / "conf" / "framework").mkdir(parents=True, exist_ok=True)
    (root / "conf" / "lab.yaml").write_text(HEAD.replace("ROOT", str(root)))
    for name, text in declared.items():
        (root / "conf" / "framework" / f"{name}.yaml").write_text(text)
    return Lab.find(root)


def test_engines_of_lab_itself_work(tmp_path: Path) -> None:
    """S0-4.2-2, S0-4.2-3, S0-US-010-2: llama.cpp and MLX load, generate twice alike; the plan is then clean."""
    pytest.importorskip("llama_cpp")
    pytest.importorskip("mlx_lm")
    lab = lab_at(tmp_path, llama_cpp="{}\n", mlx_lm="{}\n")
    assert done(lab) == ["create framework.llama_cpp", "create framework.mlx_lm"]
    assert done(lab) == []
    results = frameworks.test(Lab.find(tmp_path), ["llama_cpp", "mlx_lm"], "")
    assert [r.works for r in results] == [True, True]
    assert all(any("generate 8 tokens, twice alike" in t for t in r.tested) for r in results)
    page = frameworks.page(Lab.find(tmp_path), results)
    assert "| MLX LM | lab | yes | 0." in page
    assert "| PyTorch | – | not installed here |" in page
    for path in (tmp_path / "conf" / "framework").iterdir():
        path.unlink()
    assert done(lab) == ["destroy framework.llama_cpp", "destroy framework.mlx_lm"]
    assert not (tmp_path / "state" / "frameworks").exists()


def test_a_broken_framework_names_its_step(tmp_path: Path) -> None:
    """S0-US-010-2: a smoke line that fails is a problem with the step that failed; nothing claims that it works."""
    line = "smoke: \"echo 'step: load'; echo no such weights >&2; exit 3\"\n"
    lab = lab_at(tmp_path, homemade=line)
    with pytest.raises(Problems, match="step `load` failed") as e:
        done(lab)
    assert e.value.problems[0].why == "no such weights"
    said = json.loads((tmp_path / "state" / "frameworks" / "homemade.json").read_text())
    assert (said["works"], said["step"]) == (False, "load")
    lab_at(tmp_path, homemade="smoke: 'exit 0'\n")
    done(lab)
    assert plan(Lab.find(tmp_path)).changes[0].action is Action.NONE


def test_what_is_missing_says_how_to_get_it(tmp_path: Path) -> None:
    """A missing program is a problem that says how to install it; an unknown name suggests the nearest."""
    lab = lab_at(tmp_path, server="is_: ollama\nprogram: ollama-that-is-not-here\n")
    with pytest.raises(Problems, match="does not work") as e:
        done(lab)
    assert "brew install ollama" in e.value.problems[0].do
    with pytest.raises(Problems, match="did you mean `langchain`"):
        _ = lab_at(tmp_path / "b", langchian="{}\n").declarations


def test_a_new_version_is_tested_again(tmp_path: Path) -> None:
    """A result counts only for what was tested: another program under the same name is no longer known to work."""
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    lab = lab_at(tmp_path, own=f"program: {program}\nsmoke: {program}\n")
    assert done(lab) == ["create framework.own"]
    program.write_text("#!/bin/sh\n# newer\nexit 0\n")
    assert [c.action for c in plan(Lab.find(tmp_path)).changes] == [Action.UPDATE]
    assert done(lab) == ["update framework.own"]
    assert done(lab) == []


def test_an_ollama_server_is_started_and_asked(tmp_path: Path) -> None:
    """S0-4.2-1: the smoke test starts a server of its own and asks its API; here against a stub that speaks it."""
    stub = tmp_path / "ollama"
    stub.write_text(
        f"#!{sys.executable}\n"
        "import os, json\nfrom http.server import *\n"
        "class H(BaseHTTPRequestHandler):\n"
        "    def log_message(self, *a): pass\n"
        "    def do_GET(self):\n"
        "        b = json.dumps({'version': '0.0-stub'} if self.path == '/api/version' else {'models': []}).encode()\n"
        "        self.send_response(200); self.end_headers(); self.wfile.write(b)\n"
        "host, port = os.environ['OLLAMA_HOST'].split(':')\n"
        "HTTPServer((host, int(port)), H).serve_forever()\n"
    )
    stub.chmod(0o755)
    result = tool.probe(TestFramework("o", "ollama", program=str(stub)), lambda: None)
    assert (result.works, result.version, result.tested) == (True, "0.0-stub", ("serve", "list models")), result
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    result = tool.probe(TestFramework("o", "ollama", program=str(broken)), lambda: None)
    assert (result.works, result.step) == (False, "serve")


@pytest.mark.slow
def test_every_agent_framework_gets_a_reply_from_a_model_of_the_lab(tmp_path: Path) -> None:
    """S0-4.2-5, S0-7.2-4, S0-1.2-1: the env `agents` comes from its template; all in it talk to a served model."""
    lab = lab_at(tmp_path, **dict.fromkeys(AGENTS, "env: agents\n"), mcp="env: agents\n", llama_cpp="{}\n")
    tiny_gguf = make.gguf(make.model(tmp_path / "llama"), tmp_path / "tiny.gguf", "F32")
    for kind, name, text in (("env", "agents", "template: agents\n"), ("model", "tiny", f"path: {tiny_gguf}\n")):
        (tmp_path / "conf" / kind).mkdir()
        (tmp_path / "conf" / kind / f"{name}.yaml").write_text(text)
    try:
        lock(Lab.find(tmp_path), ["env.agents"])
    except Problems as e:
        pytest.skip(f"no index of Python packages: {e}")
    assert "create framework.crewai" in done(lab)
    assert done(lab) == []
    results = {r.framework: r for r in frameworks.test(Lab.find(tmp_path), [], "model.tiny")}
    assert {n for n, r in results.items() if not r.works} == set(), results
    assert {n for n in results if "chat with model.tiny" in results[n].tested} == set(AGENTS)
    assert "generate 8 tokens, twice alike" in results["llama_cpp"].tested
    child = TestLab(tmp_path).child("env", "run", "agents", "--", "python", "-c", "import mcp; print(mcp.__name__)")
    said, err = child.communicate()
    assert (child.returncode, said.strip()) == (0, "mcp"), err


def test_known_faults_of_a_lock_are_warned_of() -> None:
    """S0-US-010-4: a known-bad pair in a lock is said with what to do; the same packages elsewhere are not."""
    assert [i.split(":")[0] for i in issues({"numpy": "2.1", "torch": "2.2.1"}, "linux-64")] == [
        "known issue with numpy 2.1, torch 2.2.1"
    ]
    assert not list(issues({"numpy": "2.1", "torch": "2.6"}, "linux-64"))
    assert list(issues({"bitsandbytes": "0.45"}, "osx-arm64"))
    assert not list(issues({"bitsandbytes": "0.45"}, "linux-64"))


def test_every_known_framework_has_a_test_and_its_template() -> None:
    """Each framework Lab knows has a smoke test that comes with it, and the template it names exists."""
    recipes = Path(__file__).parents[2] / "recipes" / "env"
    for known in KNOWN.values():
        assert tool.shipped(known.name), known.name
        assert not known.template or (recipes / f"{known.template}.yaml").exists()
