"""A quantization through the whole of Lab: made, left alone, replaced, damaged, mended, removed (S0-4.3-4).

`lab generate`, `lab bench`, `lab serve`, `lab models compare` on what was made (S0-4.2-2, S0-4.2-3, S0-US-002-4, DC-7).
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


class Home:
    """A lab in a folder, driven through its command line as people do."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.root = folder
        self.store = folder / "store"
        for path in ("conf/model", "conf/quantization"):
            (folder / path).mkdir(parents=True)
        (folder / "conf" / "lab.yaml").write_text(f"lab: {{name: t, id: engines-test, store: {self.store}}}\n")
        (folder / "conf" / "model" / "tiny.yaml").write_text(f"path: {model}\nplace: copy\n")

    def declare(self, name: str, text: str) -> None:
        (self.root / "conf" / "quantization" / f"{name}.yaml").write_text(text)

    def lab(self, *words: str, code: int = 0) -> str:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "lab", "-C", str(self.root), *words], env=env, capture_output=True, text=True
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def actions(self) -> dict[str, str]:
        found = json.loads(self.lab("plan", "--json"))
        return {c["address"]: c["action"] for c in found["changes"] if c["action"] != "none"}

    def view(self, name: str) -> Path:
        return self.store / "models" / "tiny" / name


@pytest.fixture
def home(tmp_path: Path, tiny: Path) -> Home:
    return Home(tmp_path / "lab", tiny)


@pytest.mark.slow
def test_a_quantizations_whole_life(home: Home) -> None:
    home.declare("q", "of: tiny\nformat: gguf\ntype: Q4_K_M\n")
    home.declare("m", "of: tiny\nformat: mlx\nbits: [8, 4]\n")
    names = {"quantization.q", "quantization.m.8bit", "quantization.m.4bit"}
    assert home.actions() == {"model.tiny": "create"} | dict.fromkeys(names, "create")
    home.lab("apply", "--yes")
    assert home.actions() == {}
    listed = {e["address"]: e["precision"] for e in json.loads(home.lab("models", "--json"))}
    assert listed["quantization.q"] == "Q4_K_M"  # as it was asked for, whatever most of its bytes are
    # Its type changes: exactly that one is replaced.
    home.declare("q", "of: tiny\nformat: gguf\ntype: Q8_0\n")
    assert home.actions() == {"quantization.q": "replace"}
    home.lab("apply", "--yes")
    assert home.actions() == {}
    assert [p.name for p in home.view("q").glob("*.gguf")] == ["tiny-Q8_0.gguf"]
    # One byte is flipped: drift, named; only that is made again, with the very bytes it had.
    file = home.view("q") / "tiny-Q8_0.gguf"
    blob = file.resolve()
    before = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert home.actions() == {"quantization.q": "update"}
    assert "tiny-Q8_0.gguf" in home.lab("plan")
    home.lab("apply", "--yes")
    assert home.actions() == {}
    assert file.resolve().read_bytes() == before
    # Taken away: removed, its neighbours stay.
    (home.root / "conf" / "quantization" / "q.yaml").unlink()
    assert home.actions() == {"quantization.q": "destroy"}
    home.lab("apply", "--yes")
    assert not home.view("q").exists()
    assert home.view("m.4bit").is_dir()
    assert home.actions() == {}
    # A level of the ladder is taken away: none of the others is touched.
    home.declare("m", "of: tiny\nformat: mlx\nbits: [4]\n")
    assert home.actions() == {"quantization.m.8bit": "destroy"}
    home.lab("destroy", "--all", "--yes")
    assert not (home.store / "models" / "tiny").exists()


def test_an_mlx_quantization_of_a_gguf_is_refused_with_the_allowed_list(home: Home, tiny_gguf: Path) -> None:
    (home.root / "conf" / "model" / "tiny.yaml").write_text(f"path: {tiny_gguf}\n")
    home.declare("m", "of: tiny\nformat: mlx\nbits: 4\n")
    said = home.lab("plan", code=1)
    assert "MLX quantizes safetensors; model.tiny is a GGUF. Allowed here: format gguf" in said
    assert "conf/quantization/m.yaml:2" in said


@pytest.mark.slow
def test_killed_at_twenty_moments_it_is_finished_by_the_next_apply(home: Home) -> None:
    """SIGKILL during conversion, quantization by either engine or between: the next apply ends well, nothing stray."""
    home.declare("q", "of: tiny\nformat: gguf\ntypes: [Q8_0, Q4_0]\n")
    home.declare("m", "of: tiny\nformat: mlx\nbits: [8, 4]\n")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    moments, kills = random.Random(7), 0
    while kills < 20:
        command = [sys.executable, "-m", "lab", "-C", str(home.root), "apply", "--yes"]
        running = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.5, 4))
        if running.poll() is not None:
            # It finished: everything is damaged, so that there is work again.
            for blob in home.store.glob("blobs/sha256/*/*"):
                blob.chmod(0o644)
                blob.write_bytes(b"spoiled" + blob.read_bytes()[7:])
            continue
        running.kill()
        running.wait()
        kills += 1
    home.lab("apply", "--yes")
    assert home.actions() == {}
    home.lab("verify")
    assert not [p for p in home.store.rglob("*") if "lab-tmp" in p.name]
    assert not list((home.store / "incoming").iterdir())
    linked = {p.resolve().name for p in (home.store / "models").rglob("*") if p.is_symlink()}
    blobs = {p.name for p in (home.store / "blobs").rglob("*") if p.is_file()}
    assert linked == blobs


@pytest.mark.slow
def test_the_time_a_level_took_leaves_out_how_long_it_stood_in_the_queue(home: Home) -> None:
    home.declare("m", "of: tiny\nformat: mlx\nbits: [8, 6, 4, 3]\n")
    began = time.perf_counter()
    told = home.lab("apply", "--yes", "--json-events", "+apply.capacities.cpu=1")
    wall = time.perf_counter() - began
    events = [json.loads(line) for line in told.splitlines() if line.startswith("{")]
    took = [e["seconds"] for e in events if e.get("seconds") and e.get("address", "").startswith("quantization.m")]
    assert len(took) == 4, told
    assert sum(took) < wall


@pytest.mark.slow
def test_generate_is_equal_on_a_rerun_and_tells_its_rate(home: Home) -> None:
    home.declare("q", "of: tiny\nformat: gguf\ntype: Q8_0\n")
    home.lab("apply", "--yes")
    for address in ("quantization.q", "model.tiny"):
        words = ("generate", address, "The class", "--seed", "1", "--temperature", "1", "--max-tokens", "12", "--json")
        first, again = (json.loads(home.lab(*words)) for _ in range(2))
        assert first["text"] == again["text"] != ""
        assert first["tokens"] == 12
        assert first["tokens_per_second"] > 0
    assert "tokens/s" in home.lab("generate", "quantization.q", "The class", "--max-tokens", "4")
    assert "did you mean" in home.lab("generate", "quantisation.q", "x", code=1)
    rows = json.loads(home.lab("bench", "quantization.q", "--depths", "8", "--tokens", "4", "--repeats", "1", "--json"))
    assert rows[0]["prompt_tokens_per_second"] > 0
    assert rows[0]["version"].startswith("llama-cpp-python")
    kept = [json.loads(x) for x in (home.root / "state" / "bench.jsonl").read_text().splitlines()]
    assert kept == rows
    assert kept[0]["depth"] == 8


def _ask(url: str, body: dict[str, Any] | bytes | None = None) -> tuple[int, Any]:
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as e:
        return e.code, json.loads(e.read())


@pytest.mark.slow
@pytest.mark.parametrize("block", ["format: gguf\ntype: Q8_0\n", "format: mlx\nbits: 4\n"])
def test_serve_speaks_openai_and_stops_on_ctrl_c(home: Home, block: str) -> None:
    home.declare("q", "of: tiny\n" + block)
    home.lab("apply", "--yes")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lab", "-C", str(home.root), "serve", "quantization.q", "--port", "0"]
    running = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert running.stdout
    ready = running.stdout.readline()
    url = next(w for w in ready.split() if w.startswith("http://127.0.0.1:"))
    status, models = _ask(f"{url}/models")
    assert (status, models["data"][0]["id"]) == (200, "quantization.q")
    asked = {"model": "quantization.q", "prompt": "The class", "max_tokens": 4, "temperature": 0}
    status, answer = _ask(f"{url}/completions", asked)
    assert (status, answer["usage"]["completion_tokens"]) == (200, 4)
    chat = {"model": "quantization.q", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    assert _ask(f"{url}/chat/completions", chat)[0] == 200
    if "gguf" in block:  # who names no model is answered by the one there is, under its name
        assert (
            _ask(f"{url}/chat/completions", {k: v for k, v in chat.items() if k != "model"})[1]["model"]
            == models["data"][0]["id"]
        )
    for other in (str(home.view("q")), "gpt-4"):
        status, refused = _ask(f"{url}/completions", {**asked, "model": other})
        assert (status, "only the model" in str(refused)) == (404, True)
    for bad in ({"model": "quantization.q", "messages": "hi"}, b"no JSON"):
        assert 400 <= _ask(f"{url}/chat/completions", bad)[0] < 500
    # A client that goes away in the middle of a stream leaves the server to the others.
    with socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0]))) as gone:
        body = json.dumps({**asked, "stream": True, "max_tokens": 64}).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        gone.sendall(head.encode() + b"\r\n\r\n" + body)
        assert gone.recv(64).startswith(b"HTTP/1.")
    assert _ask(f"{url}/completions", asked)[0] == 200
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=20)
    assert (running.returncode, "stopped." in err) == (0, True)
    with pytest.raises(urllib.error.URLError):
        _ask(f"{url}/models")


@pytest.mark.slow
def test_kl_rises_as_bits_fall(tmp_path: Path) -> None:
    """On a model that learned something, both ladders lose the original step by step; the second call is instant."""
    folder = tmp_path / "trained"
    params = tmp_path / "params.json"
    params.write_text('{"steps": 60, "vocabulary": 512}')
    script = ROOT / "recipes" / "model" / "tiny_lm" / "train.py"
    from lab.adapters.child import preload

    subprocess.run(
        [sys.executable, str(script), "--out", str(folder), "--params", str(params)],
        check=True, capture_output=True, env={**os.environ, **preload()},
    )  # fmt: skip
    home = Home(tmp_path / "lab", folder)
    home.declare("g", "of: tiny\nformat: gguf\ntypes: [F16, Q8_0, Q4_K_M, Q2_K]\n")
    home.declare("m", "of: tiny\nformat: mlx\nbits: [8, 4, 2]\n")
    home.declare("twin", "of: tiny\nformat: gguf\ntype: Q8_0\n")
    home.lab("apply", "--yes")
    from lab.app.compare_models import compare
    from lab.app.lab import Lab

    found = compare(Lab.find(home.root), "tiny", tokens=256)
    for kind in ("gguf", "mlx"):
        rows = [r for r in found.rows[1:] if r.format == kind]
        assert [r.bits_per_weight for r in rows] == sorted((r.bits_per_weight for r in rows), reverse=True)
        assert [r.bytes for r in rows] == sorted((r.bytes for r in rows), reverse=True)
        kl = [r.kl for r in rows]
        assert kl == sorted(kl)
        assert kl[-1] > 10 * kl[0] > 0
    assert (found.rows[0].level, found.rows[0].kl) == ("original", 0)
    assert [r.level for r in found.rows[1:4]] == ["F16", "Q8_0 (g.Q8_0)", "Q8_0 (twin)"]
    assert all(r.perplexity > 1 and r.tokens_per_second > 0 and r.memory > 10_000_000 for r in found.rows)
    began = time.perf_counter()
    assert compare(Lab.find(home.root), "tiny", tokens=256) == found
    assert time.perf_counter() - began < 2
    saved = {p.suffix for p in (home.root / "state" / "compare").glob("tiny.*")}
    assert saved == {".json", ".md", ".csv"}
