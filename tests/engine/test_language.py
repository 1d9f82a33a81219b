"""What Lab says can be said in Chinese, completely. Proves S4-5.1-1."""

from __future__ import annotations

import ast
import json
from pathlib import Path

from tests.labs import REPO, TestLab

ZH = json.loads((REPO / "lab/core/zh.json").read_text())
RENDERING = [*(REPO / "lab/plan").glob("*.py"), *(REPO / "lab/cli").glob("_*.py"), REPO / "lab/cli/main.py"]


def said(path: Path) -> set[str]:
    """Every constant text given to `t(…)` in a module."""
    calls = (n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call))
    named = (c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "t" and c.args)
    return {c.args[0].value for c in named if isinstance(c.args[0], ast.Constant)}


def test_the_catalogue_is_complete() -> None:
    """Every text of the plan, the apply and the command line has its Chinese."""
    assert {text for path in RENDERING for text in said(path)} - ZH.keys() == set()


def test_a_plan_speaks_chinese(tmp_path: Path) -> None:
    """`LANG=zh_CN.UTF-8 lab plan` prints Chinese headings."""
    lab = TestLab.make(tmp_path, {"file/a": "path: ROOT/a\ncontent: a\n"})
    ran = lab.run("plan", env={"LANG": "zh_CN.UTF-8", "LC_ALL": "", "PYTHONUTF8": "1"})
    assert "实验室 t" in ran.out
    assert "1 个待创建" in ran.out
    assert "1 to create" in lab.run("plan", env={"LANG": "en_US.UTF-8", "LC_ALL": ""}).out
