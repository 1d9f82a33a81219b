"""`lab forecast`, `lab advise` and `lab plan profile=mac_studio` answer offline.

Proves: issue 7, the verbs; issue 2, the reference lab.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from lab.cli.main import main
from lab.core.problem import Problems
from tests.labs import TestLab

ROOT = Path(__file__).parents[2]
DATA = Path(__file__).parent / "data"


def lab(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    said = ""
    try:
        code = main(["-C", str(ROOT), *words], sys.stdout, sys.stderr)
    except Problems as e:  # `run` prints them and exits with 1
        code, said = 1, str(e)
    found = capsys.readouterr()
    return code, found.out + found.err + said


def test_a_model_is_forecast_over_types_and_contexts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """As a table, as JSON and as a chart that is well-formed SVG."""
    chart = tmp_path / "chart.svg"
    code, text = lab(capsys, "forecast", "DeepSeek-R1", "--host", "mac_studio_512", "--chart", str(chart))
    assert code == 0
    assert "Q4_K_M     376.7 GiB" in text
    assert "✗" in text
    assert ET.parse(chart).getroot().tag.endswith("svg")
    code, text = lab(
        capsys, "forecast", "Qwen3-8B", "--type", "Q4_K_M", "--context", "32k", "--json", "--host", "m4_pro"
    )
    found = json.loads(text)
    assert found["rows"][0]["cache"]["value"] == 4608 * 2**20
    assert found["rows"][0]["fits"] is True


def test_truths_are_checked_row_by_row(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Any file with the columns; what is no such table is a problem."""
    words = ("check", str(DATA / "ground_truth.csv"), "--architectures", str(DATA / "architectures.csv"))
    code, text = lab(capsys, "forecast", *words)
    assert code == 0
    assert "t001" in text
    assert "mean error" in text
    code, text = lab(capsys, "forecast", *words, "--json")
    assert {"rows", "table", "summary"} <= set(json.loads(text))
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    code, text = lab(capsys, "forecast", "check", str(tmp_path / "x.csv"))
    assert code == 1
    assert "neither the column" in text


def test_mistakes_are_problems(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A type, a model, a host or a file that is not there names what is near."""
    assert "did you mean" in lab(capsys, "forecast", "Qwen3-8B", "--type", "Q4_K_N")[1]
    assert "did you mean `Qwen3-8B`" in lab(capsys, "forecast", "Qwen3-8X")[1]
    assert "did you mean `m3_ultra`" in lab(capsys, "forecast", "Qwen3-8B", "--host", "m3_ultr")[1]
    (tmp_path / "bad.gguf").write_bytes(b"GGUX")
    assert "no sound GGUF" in lab(capsys, "forecast", str(tmp_path / "bad.gguf"))[1]


def test_advice_names_a_declaration_with_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    """0 where something fits, 1 where nothing does."""
    code, text = lab(capsys, "advise", "Llama-3.3-70B", "--host", "m4_pro")
    assert code == 0
    assert "type: Q4_K_M" in text
    assert lab(capsys, "advise", "DeepSeek-R1", "--host", "m1")[0] == 1


def test_the_reference_lab_plans_offline_and_refuses_what_does_not_fit(capsys: pytest.CaptureFixture[str]) -> None:
    """Every level has its forecast; on a smaller host the same lab is a problem with offers."""
    code, text = lab(capsys, "plan", "profile=mac_studio")
    assert code == 0
    assert "quantization.deepseek_r1_mlx.4bit" in text
    assert "tokens/s" in text
    assert "its sizes are published, not resolved" in text
    code, text = lab(capsys, "plan", "profile=mac_studio", "host=m3_max")
    assert code == 1
    assert "does not fit on m3_max" in text
    assert "allow_overcommit: true" in text
    code, text = lab(capsys, "plan", "profile=mac_studio", "host.disk=2TB")
    assert code == 1
    assert "mac_studio_512 has 2.0 TB" in text


def test_671_billion_parameters_fit_as_arithmetic_says(tmp_path: Path) -> None:
    """At 16 bits the plan is refused with the estimate and what fits; at 4 bits weights and cache fit (S0-5.3-1)."""
    reference = TestLab(tmp_path)
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    lock = (tmp_path / "conf/lock/model/deepseek_r1_q4_k_m.yaml").read_text()
    whole = 671_026_419_200 * 2
    full = lock.replace("Q4_K_M", "F16").replace("404488847360", str(whole))
    reference.write("conf/lock/model/r1_f16.yaml", full)
    reference.write("conf/model/r1_f16.yaml", "hub: x/DeepSeek-R1-GGUF\nformat: gguf\ncontext: 32768\n")
    cache = 70_272 * 32_768  # bytes a token of its compressed keys and values, times the context

    def plan(*models: str) -> tuple[int, str]:
        ran = reference("plan", "profile=mac_studio", "~resources", f"+resources.model=[{','.join(models)}]")
        return ran.code, ran.out + ran.err

    code, text = plan("r1_f16")
    assert code == 1
    assert "F16 at 32768 tokens does not fit on mac_studio_512" in text
    said = int(re.search(r"needs (\d+) GiB; there are 479 GiB", text)[1])  # type: ignore[index]
    assert said == pytest.approx((whole + cache) / 2**30, rel=0.01)
    offer, also = re.search(r"declare (\w+) at 32k.*\((.*) fit too\)", text).groups()  # type: ignore[union-attr]
    assert offer == "Q5_K_M"
    assert {"Q4_K_M", "Q3_K_M", "Q2_K"} <= set(also.split(", "))
    assert 404_488_847_360 + cache < 479 * 2**30
    assert plan("deepseek_r1_q4_k_m")[0] == 0


def test_lists_of_types_and_contexts_are_taken_with_commas(capsys: pytest.CaptureFixture[str]) -> None:
    """As often given, or in one word; what is no number of tokens is a problem in words."""
    words = ("forecast", "Qwen3-8B", "--host", "m4_pro", "--type", "Q4_K_M,Q8_0", "--context", "8k,32768", "--json")
    code, text = lab(capsys, *words)
    assert code == 0
    assert [(r["use"], r["context"]) for r in json.loads(text)["rows"]] == [
        (kind, tokens) for kind in ("Q4_K_M", "Q8_0") for tokens in (8192, 32768)
    ]
    code, text = lab(capsys, "forecast", "Qwen3-8B", "--context", "8q")
    assert code == 1
    assert "`8q` is no number of tokens" in text
    assert lab(capsys, "advise", "Qwen3-8B", "--context", "many")[0] == 1


def test_what_is_used_together_is_added_up_and_refused_where_it_cannot_fit(tmp_path: Path) -> None:
    """`together:` in the head: the plan says the sum; too much is a problem with a choice that fits; a typo is told."""
    reference = TestLab(tmp_path)
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    profile = tmp_path / "conf/profile/mac_studio.yaml"
    plain = profile.read_text()
    profile.write_text(plain + "together: [model.deepseek_r1_q2_k, quantization.qwen3_8b_gguf.Q4_K_M]\n")
    code, text = reference("plan", "profile=mac_studio").code, reference("plan", "profile=mac_studio").out
    assert code == 0
    assert "Used together: 257." in text
    assert "min besides the downloads." in text  # at what rate they come is not known
    totals = json.loads(reference("plan", "profile=mac_studio", "--json").out)["forecast"]
    assert totals["together"]["value"] == pytest.approx(257.4e9, rel=0.01)
    assert totals["critical_path"] == ["quantization.deepseek_r1_mlx.4bit"]
    profile.write_text(plain + "together: [model.deepseek_r1_q4_k_m, model.deepseek_r1_q2_k, model.gpt_oss_120b]\n")
    ran = reference("plan", "profile=mac_studio")
    assert ran.code == 1
    assert "conf/profile/mac_studio.yaml:10:1  what is used together does not fit on mac_studio_512" in ran.out
    assert "leave model.deepseek_r1_q2_k out of `together`" in ran.out
    profile.write_text(plain + "together: [model.deepseek_r1_q2_k, model.gpt_oss_120b]\n")
    assert reference("plan", "profile=mac_studio").code == 0
    profile.write_text(plain + "together: [model.deepseek_r1_q2]\n")
    assert "did you mean `model.deepseek_r1_q2_k`" in reference("plan", "profile=mac_studio").out
