"""A ladder of sizes: what runs here is made and run, what does not fit is told before it is fetched.

Proves: S0-7.1-4, and the ten sizes of S0-7.2-4.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.app.init import init
from tests.labs import TestLab

LARGER = {
    "Qwen/Qwen3-8B": True,
    "meta-llama/Llama-3.3-70B-Instruct": True,
    "Qwen/Qwen3-235B-A22B": True,
    "deepseek-ai/DeepSeek-R1": False,
}
"""Published models, and whether eight bits of them fit 512 GB."""


@pytest.mark.slow
def test_ten_sizes_run_here_and_the_rungs_above_are_judged_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a tenth of a million to three hundred million parameters: each passes, and the page says so."""
    pytest.importorskip("mlx_lm")
    monkeypatch.setenv("LAB_STORE", str(tmp_path / "store"))
    lab = TestLab(init(tmp_path / "lab", recipe="size_ladder").root)
    ran = lab("apply", "--yes")
    assert ran.code == 0, ran
    page = (lab.root / "state/outputs/ladder/ladder").read_text()
    assert page.count("| passed |") == 10, page
    assert "No changes" in lab("plan").out
    for name, fits in LARGER.items():
        rows = json.loads(lab("forecast", name, "--host", "mac_studio_512", "--context", "4096", "--json").out)["rows"]
        eight = next(r for r in rows if r["use"] == "Q8_0")
        assert eight["fits"] is fits, (name, eight)
        assert any(r["fits"] for r in rows), name
