"""`lab forecast`, `lab advise` and `lab plan profile=mac_studio` answer offline.

Proves: issue 7, the verbs; issue 2, the reference lab.
"""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from lab.cli.main import main
from lab.core.problem import Problems

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
    code, text = lab(capsys, "plan", "profile=mac_studio", "host=m3_max")
    assert code == 1
    assert "does not fit on m3_max" in text
    assert "allow_overcommit: true" in text
