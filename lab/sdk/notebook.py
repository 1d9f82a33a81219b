"""Notebook: runs a notebook from top to bottom inside its run, and keeps it as executed.

The parameters come in a cell of their own after the one tagged `parameters` (papermill's convention), else first. A
last line that is an expression is shown as Jupyter would. Cells with `%` or `!` lines need `nbclient`, which is used
where it is installed.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import io
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any


def main() -> None:
    """Runs `sys.argv[1]`; exits with 1 where a cell raises. The executed notebook is among the run's artifacts."""
    folder, source = Path(os.environ["LAB_RUN"]), Path(sys.argv[1])
    book = json.loads(source.read_text(encoding="utf-8"))
    given = json.loads((folder / "params.json").read_text())
    book["cells"] = injected(book["cells"], given)
    seed = json.loads((folder / "spec.json").read_text()).get("seed", 42)
    target = folder / "artifacts" / source.name
    target.parent.mkdir(exist_ok=True)
    magic = any(line.lstrip()[:1] in ("%", "!") for c in book["cells"] if c["cell_type"] == "code" for line in code(c))
    failed = by_nbclient(book) if magic and importlib.util.find_spec("nbclient") else run(book, seed)
    target.write_text(json.dumps(book, indent=1, default=str), encoding="utf-8")
    sys.exit(1 if failed else 0)


def injected(cells: list[dict[str, Any]], params: dict[str, Any]) -> list[dict[str, Any]]:
    """The cells with one that sets the parameters. Pure."""
    lines = [f"{name} = {value!r}" for name, value in params.items()]
    made: dict[str, Any] = {
        "cell_type": "code",
        "metadata": {"tags": ["injected-parameters"]},
        "source": "\n".join(["# Parameters", *lines]),
        "outputs": [],
        "execution_count": None,
    }
    tagged = [n for n, c in enumerate(cells) if "parameters" in (c.get("metadata") or {}).get("tags", ())]
    at = tagged[0] + 1 if tagged else 0
    return [*cells[:at], made, *cells[at:]] if params else cells


def code(cell: dict[str, Any]) -> list[str]:
    """A cell's lines. Pure."""
    source = cell.get("source", "")
    return ("".join(source) if isinstance(source, list) else source).splitlines()


def run(book: dict[str, Any], seed: int) -> bool:
    """Every code cell in one namespace, outputs kept with it; whether one raised."""
    from lab.sdk.call import seed_all

    names: dict[str, Any] = {"__name__": "__main__"}
    seed_all(seed)
    count = 0
    for cell in book["cells"]:
        if cell["cell_type"] != "code":
            continue
        count += 1
        printed, outputs = io.StringIO(), list[dict[str, Any]]()
        cell["execution_count"] = count
        error = None
        with contextlib.redirect_stdout(_Both(printed)):
            try:
                shown = _execute("\n".join(code(cell)), names, f"cell {count}")
            except Exception as e:
                error, shown = e, None
        if printed.getvalue():
            outputs.append({"output_type": "stream", "name": "stdout", "text": printed.getvalue()})
        if shown is not None:
            data = {"text/plain": repr(shown)}
            if hasattr(shown, "_repr_html_"):
                data["text/html"] = shown._repr_html_()
            outputs.append({"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": count})
        if error is not None:
            lines = traceback.format_exception(error)
            outputs.append(
                {"output_type": "error", "ename": type(error).__name__, "evalue": str(error), "traceback": lines}
            )
            print("".join(lines), file=sys.stderr)
        cell["outputs"] = outputs
        if error is not None:
            return True
        if count == 1:
            seed_all(seed)
    return False


def _execute(text: str, names: dict[str, Any], name: str) -> Any:
    tree = ast.parse(text, name)
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr):
        exec(compile(tree, name, "exec"), names)  # nosec B102 # the owner's own notebook
        return None
    tree.body.pop()
    exec(compile(tree, name, "exec"), names)  # nosec B102 # the owner's own notebook
    return eval(compile(ast.Expression(last.value), name, "eval"), names)  # nosec B307 # the owner's own notebook


def by_nbclient(book: dict[str, Any]) -> bool:
    """The same through Jupyter's own client; whether a cell raised."""
    import nbclient  # type: ignore[import-not-found,unused-ignore]
    import nbformat  # type: ignore[import-not-found,unused-ignore]

    notebook = nbformat.from_dict(book)
    try:
        nbclient.NotebookClient(notebook, timeout=None).execute()
    except nbclient.exceptions.CellExecutionError as e:
        print(e, file=sys.stderr)
        return True
    finally:
        book.update(json.loads(nbformat.writes(notebook)))
    return False


class _Both(io.TextIOBase):
    """Writes to the log and keeps a copy."""

    def __init__(self, copy: io.StringIO) -> None:
        self._copy, self._out = copy, sys.stdout

    def write(self, text: str) -> int:
        self._copy.write(text)
        return self._out.write(text)

    def flush(self) -> None:
        self._out.flush()


if __name__ == "__main__":
    main()
