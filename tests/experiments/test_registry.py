"""What is known of a model is one page: what it is, what it was made from, how good and how fast it is.

Proves S2-3.5-1, S2-3.5-3, S3-3.1-1, S3-4.1-2 and S0-US-002-3.
"""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lab.adapters import mlflow_local, spool
from lab.sdk import Artifact
from tests.engines import make
from tests.experiments.conftest import Bench
from tests.experiments.test_evaluation import TASKS, newest

ALL = '# @package _global_\nresources: {"*": "*"}\n'


@pytest.mark.slow
def test_two_models_stand_side_by_side_and_a_budget_is_kept_or_not(bench: Bench, tmp_path: Path) -> None:
    """Accuracy is the evaluation run's, speed the last bench's, size the store's; a budget that cannot be kept fails.

    Figures of a model as it was before do not count for what it is now.
    """
    pytest.importorskip("mlx_lm")
    bench.write("conf/profile/all.yaml", ALL)
    bench.write("tasks/test.jsonl", "".join(json.dumps(t) + "\n" for t in TASKS))
    bench.write("conf/dataset/tasks.yaml", "path: tasks\n")
    for name, hidden in (("m1", 256), ("m2", 320)):
        make.model(tmp_path / name, hidden=hidden)
        bench.write(f"conf/model/{name}.yaml", f"path: {tmp_path / name}\n")
    bench("new", "experiment", "e1", "--from", "tasks", "model=m1", "dataset=tasks", "context=128")
    assert bench("apply", "--yes")[0] == 0
    code, told = bench("models", "compare", "m1", "m2")
    assert code == 0
    assert "model.m2 has a gap: evaluate it" in told
    assert "model.m1 has a gap: `lab bench model.m1`" in told
    bench("new", "experiment", "e2", "--from", "tasks", "model=m2", "dataset=tasks", "context=128")
    assert bench("apply", "--yes")[0] == 0
    quick = ("--depths", "8", "--tokens", "4", "--repeats", "1")
    assert bench("bench", "m2", *quick)[0] == 0
    bench.write("conf/model/m1.yaml", f"path: {tmp_path / 'm1'}\nbudget: {{load_s: 600, ttft_ms: 600000}}\n")
    code, told = bench("bench", "m1", *quick)
    assert (code, told.count("PASS"), "FAIL" in told) == (0, 2, False), told
    bench.write("conf/model/m1.yaml", f"path: {tmp_path / 'm1'}\nbudget: {{load_s: 600, decode_tps: 1e9}}\n")
    code, told = bench("bench", "m1", *quick)
    assert (code, told.count("PASS"), "FAIL  decode_tps" in told) == (1, 1, True), told
    rows = json.loads(bench("models", "compare", "m1", "m2", "--json")[1])
    measured = [json.loads(line) for line in (bench.root / "state/bench.jsonl").read_text().splitlines()]
    for row, experiment, name in zip(rows, ("e1", "e2"), ("m1", "m2"), strict=True):
        run = newest(bench, experiment)
        assert (row["accuracy"], row["run"]) == (run.result["metrics"]["accuracy"], run.id)
        speeds = [m["tokens_per_second"] for m in measured if m["address"] == f"model.{name}"]
        assert row["tokens_per_second"] == speeds[-1]
        assert row["bytes"] == sum(p.stat().st_size for p in (tmp_path / name).iterdir())
    assert rows[0]["bytes"] != rows[1]["bytes"]
    head, *body = bench("models", "compare", "m1", "m2")[1].splitlines()
    assert head.split() == ["model", "accuracy", "tokens/s", "size", "run"]
    assert [line.split()[0] for line in body] == ["model.m1", "model.m2"]
    make.model(tmp_path / "m1", hidden=384)
    rows = json.loads(bench("models", "compare", "m1", "m2", "--json")[1])
    assert (rows[0]["accuracy"], rows[0]["tokens_per_second"]) == (None, None)


TRAIN = """\
import json
def main(outputs, lr: float = 0.1):
    outputs["m"].mkdir()
    (outputs["m"] / "config.json").write_text(json.dumps({"architectures": ["Tiny"], "model_type": "tiny", "lr": lr}))
    return {"loss": lr}
"""
JUDGE = "def main(models):\n    return {'accuracy': 0.75}\n"


def train(bench: Bench, rule: str, lr: float = 0.1) -> None:
    """The declaration of a training whose output is registered by a rule."""
    body = f"call: train:main\nparams: {{lr: {lr}}}\noutputs: {{m: m}}\nregister: {{name: tiny{rule}}}\n"
    bench.write("conf/experiment/train.yaml", f"goal: Is it small?\n{body}")


@pytest.fixture
def lab(bench: Bench) -> Bench:
    """A training, the model made of it and its evaluation, in a lab that knows who may approve."""
    bench.write("conf/profile/all.yaml", ALL)
    head = bench.root / "conf/lab.yaml"
    head.write_text(head.read_text().replace("{name: test", "{approvers: {maintainer: [ann, bob]}, name: test"))
    bench.write("train.py", TRAIN)
    bench.write("judge.py", JUDGE)
    bench.write("conf/model/tiny.yaml", "from: train\noutput: m\n")
    bench.write("conf/experiment/judge.yaml", "call: judge:main\nmodels: {model: tiny}\n")
    return bench


def changes(bench: Bench) -> dict[str, tuple[str, str]]:
    """What a plan would do: address → action and reason."""
    found = json.loads(bench("plan", "--json")[1])["changes"]
    return {c["address"]: (c["action"], c["reason"]) for c in found if c["action"] != "none"}


@pytest.mark.slow
def test_a_registered_model_has_a_card_aliases_and_an_approved_way_to_production(lab: Bench) -> None:
    """The card names parameters, metrics, evaluations and the run; aliases and stages follow the declaration at the
    next apply without a new run; production needs an approval of exactly this content, and history says whose."""
    train(lab, "")
    assert lab("apply", "--yes")[0] == 0
    run, judge = newest(lab, "train"), newest(lab, "judge")
    client = MlflowClient(mlflow_local.uri(mlflow_local.database(lab.root / "state")))
    code, card = lab("registry", "show", "tiny")
    assert code == 0
    for line in (
        "# tiny, version 1", "Is it small?", f"- run: {run.id}", "| lr | 0.1 |", "| loss | 0.1 |",
        f"## Evaluated by {judge.id}", "| accuracy | 0.75 |", "- architecture: tiny",
    ):  # fmt: skip
        assert line in card
    sha256 = run.result["outputs"]["m"]["sha256"]
    assert json.loads(lab("registry", "show", "tiny@1", "--json")[1])["sha256"] == sha256
    assert "did you mean `tiny`" in lab("registry", "show", "tinyy")[1]

    train(lab, ", aliases: [best], stage: staging")
    assert changes(lab)["experiment.train"][0] == "update", "nothing is to be run"
    assert lab("apply", "--yes")[0] == 0
    assert changes(lab) == {}
    assert newest(lab, "train").id == run.id
    assert set(client.get_registered_model("tiny").aliases) == {"best", "staging"}
    client.delete_registered_model_alias("tiny", "best")
    assert "registered.aliases drifted" in changes(lab)["experiment.train"][1]
    assert lab("apply", "--yes")[0] == 0
    assert str(client.get_model_version_by_alias("tiny", "best").version) == "1"

    train(lab, ", stage: production")
    code, told = lab("plan")
    assert code == 1
    assert "tiny needs an approval by a maintainer to be in production" in told
    assert f"digest: {sha256}" in told
    for approved, why in (
        (f"by: eve, role: maintainer, digest: {sha256}", "eve is no maintainer"),
        (f"by: ann, role: owner, digest: {sha256}", "the role owner may not approve"),
        (f"by: ann, role: maintainer, digest: {'f' * 64}", "is not the version in force"),
    ):
        train(lab, f", stage: production, approved: {{{approved}}}")
        code, told = lab("plan")
        assert (code, why in told) == (1, True), told
    good = f", stage: production, approved: {{by: ann, role: maintainer, digest: {sha256}}}"
    train(lab, good)
    assert lab("apply", "--yes")[0] == 0
    assert set(client.get_registered_model("tiny").aliases) == {"production"}
    version = client.get_model_version_by_alias("tiny", "production")
    assert (version.tags["stage"], version.tags["approved"]) == ("production", "ann (maintainer)")
    number = json.loads(lab("history", "--json")[1])[0]["generation"]
    told = lab("history", str(number))[1]
    assert "registered.approved: nobody → ann (maintainer)" in told
    assert "registered.stage: staging → production" in told
    assert "production approved by ann (maintainer)" in lab("registry")[1]

    train(lab, good, lr=0.2)
    code, told = lab("apply", "--yes")
    assert code == 1, "another content is not what ann approved"
    assert "is not what was approved for production" in told
    assert str(client.get_model_version_by_alias("tiny", "production").version) == "1"
    fresh = newest(lab, "train").result["outputs"]["m"]["sha256"]
    assert fresh != sha256
    train(lab, good.replace(sha256, fresh).replace("ann", "bob"), lr=0.2)
    assert lab("apply", "--yes")[0] == 0
    assert changes(lab) == {}
    assert str(client.get_model_version_by_alias("tiny", "production").version) == "2"
    assert client.get_model_version("tiny", "1").tags["stage"] == "archived"
    train(lab, ", stage: archived", lr=0.2)
    assert lab("apply", "--yes")[0] == 0
    assert client.get_registered_model("tiny").aliases == {}
    train(lab, "", lr=0.2)
    assert lab("run", "train", "lr=0.3", "-q")[0] == 0
    assert lab("apply", "--yes")[0] == 0
    assert changes(lab) == {}


ARTIFACTS = """\
import lab.sdk as lab
def main(text: str, url: str):
    for kind in ("dataset", "model", "result", "custom"):
        made = lab.Artifact(f"my_{kind}", type=kind, metadata={"why": "a test"})
        made.add_file(f"{text}/one.txt")
        made.add_dir(f"{text}/more")
        made.add_reference("s3://bucket/raw.parquet", etag="9b2c")
        made.add_reference(url)
        lab.log_artifact(made)
"""


class Tagged(BaseHTTPRequestHandler):
    """Answers HEAD with an ETag, and counts every other request as a mistake."""

    asked: list[str] = []  # noqa: RUF012 - shared on purpose: the server makes a handler per request

    def do_HEAD(self) -> None:
        """The headers of a file."""
        self.asked.append(self.command)
        self.send_response(200)
        self.send_header("ETag", '"e-7"')
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_: object) -> None: ...


def test_artifacts_of_every_type_hold_files_folders_and_references(bench: Bench, tmp_path: Path) -> None:
    """The manifest has the hash of every file, and of a reference only address and ETag: nothing of it is fetched.

    MLflow has files, manifest and the digest as a tag; the same content has the same digest in another run.
    """
    (tmp_path / "in/more/deep").mkdir(parents=True)
    (tmp_path / "in/one.txt").write_text("one")
    (tmp_path / "in/more/deep/two.txt").write_text("two")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Tagged)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/far.bin"
    bench.write("code.py", ARTIFACTS)
    bench.write("conf/experiment/a.yaml", f"call: code:main\nparams: {{text: {tmp_path / 'in'}, url: '{url}'}}\n")
    runs = []
    for _ in range(2):
        assert bench("run", "a", "-q")[0] == 0, bench("logs", "a")[1]
        runs.append(newest(bench, "a"))
    server.shutdown()
    server.server_close()
    assert set(Tagged.asked) == {"HEAD"}
    db = mlflow_local.database(bench.root / "state")
    client = MlflowClient(mlflow_local.uri(db))
    for kind in ("dataset", "model", "result", "custom"):
        first, again = (json.loads((r / f"artifacts/my_{kind}.artifact.json").read_text()) for r in runs)
        assert (first["type"], first["digest"]) == (kind, again["digest"])
        assert first["files"] == {
            "far.bin": {"uri": url, "etag": "e-7"},
            "more/deep/two.txt": {"sha256": hashlib.sha256(b"two").hexdigest(), "bytes": 3},
            "one.txt": {"sha256": hashlib.sha256(b"one").hexdigest(), "bytes": 3},
            "raw.parquet": {"uri": "s3://bucket/raw.parquet", "etag": "9b2c"},
        }
        spool.ship(runs[0], db)
        key = mlflow_local.run_id(runs[0].id)
        assert client.get_run(key).data.tags[f"artifact.my_{kind}"] == f"{kind} {first['digest']}"
        assert {a.path for a in client.list_artifacts(key)} >= {f"my_{kind}", f"my_{kind}.artifact.json"}
        assert {a.path for a in client.list_artifacts(key, f"my_{kind}")} == {f"my_{kind}/more", f"my_{kind}/one.txt"}


def test_an_artifact_of_no_type_or_outside_its_folder_is_refused(tmp_path: Path) -> None:
    """Another type, a path that climbs out, a file that is not there and an address without a scheme are mistakes."""
    with pytest.raises(ValueError, match="no type of artifact"):
        Artifact("x", type="thing")
    made = Artifact("x")
    (tmp_path / "f").write_text("x")
    with pytest.raises(ValueError, match="outside the artifact"):
        made.add_file(tmp_path / "f", "../f")
    with pytest.raises(FileNotFoundError):
        made.add_file(tmp_path / "g")
    with pytest.raises(ValueError, match="is no address"):
        made.add_reference("bucket/raw")
