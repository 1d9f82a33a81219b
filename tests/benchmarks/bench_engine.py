"""The engine at 100 … 100,000 `file` resources, beside peers that pip or apt installs, in one run.

    python -m tests.benchmarks.bench_engine [--sizes 100,1000,10000] [--write]

Prints Markdown; `--write` puts it into docs/performance.md. A peer that is not installed is named and left out. Each is
given the same N small files to keep, already as declared, and asked what it would do.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.measure import Figures, best, measure, written

REPO = Path(__file__).parents[2]
LAB = [sys.executable, "-m", "lab"]
ENV = {"PYTHONPATH": str(REPO)}


def lab(root: Path, n: int) -> dict[str, Figures]:
    """Lab's figures for N files: plan before, apply, and plans after with nothing, one, and all changed."""
    (root / "conf/file").mkdir(parents=True)
    (root / "conf/lab.yaml").write_text(f"lab: {{name: bench, id: 00000000-bench, store: {root}/store}}\n")

    def declare(i: int, text: str) -> None:
        (root / f"conf/file/f{i:06}.yaml").write_text(f"path: {root}/out/{i // 1000}/f{i}.txt\ncontent: {text}{i}\n")

    for i in range(n):
        declare(i, "hello")
    plan, apply = [*LAB, "plan"], [*LAB, "-q", "apply", "--yes"]
    out = {"plan, cold cache": measure(plan, root, ENV), "apply, all new": measure(apply, root, ENV)}
    measure(plan, root, ENV)
    out["plan, none changed"] = best(plan, root, ENV)
    declare(n // 2, "changed")
    out["plan, one changed"] = measure(plan, root, ENV)
    out["apply, one changed"] = measure(apply, root, ENV)
    for i in range(n):
        declare(i, "again")
    out["plan, all changed"] = measure(plan, root, ENV)
    out["apply, all changed"] = measure(apply, root, ENV)
    return out


def make_(root: Path, n: int) -> list[str] | None:
    """make -q."""
    targets = " ".join(f"f{i}" for i in range(n))
    rules = "\n".join(f"f{i}: src{i}\n\tcp src{i} f{i}" for i in range(n))
    (root / "Makefile").write_text(f"all: {targets}\n{rules}\n")
    for i in range(n):
        (root / f"src{i}").write_text("hello")
        (root / f"f{i}").write_text("hello")
    return ["make", "-q"] if shutil.which("make") and n <= 10_000 else None


def ansible(root: Path, n: int) -> list[str] | None:
    """ansible-playbook --check with one copy task per file, as its users write it."""
    program = shutil.which("ansible-playbook")
    tasks = "".join(
        f"    - name: f{i}\n      ansible.builtin.copy: {{dest: {root}/f{i}, content: hello}}\n" for i in range(n)
    )
    (root / "site.yml").write_text(f"- hosts: localhost\n  connection: local\n  gather_facts: false\n  tasks:\n{tasks}")
    for i in range(n):
        (root / f"f{i}").write_text("hello")
    python = f"ansible_python_interpreter={sys.executable}"
    return [program, "--check", "-i", "localhost,", "-e", python, "site.yml"] if program and n <= 100 else None


def pyinfra(root: Path, n: int) -> list[str] | None:
    """pyinfra --dry with one files.put per file."""
    program = shutil.which("pyinfra")
    puts = "".join(f"files.put(name='f{i}', src='src', dest='{root}/f{i}')\n" for i in range(n))
    (root / "src").write_text("hello")
    (root / "deploy.py").write_text(f"from pyinfra.operations import files\n{puts}")
    for i in range(n):
        (root / f"f{i}").write_text("hello")
    return [program, "@local", "deploy.py", "--dry", "-y"] if program and n <= 1000 else None


def ninja(root: Path, n: int) -> list[str] | None:
    """ninja -n: a build system, whose only fact of a file is its time."""
    rules = "".join(f"build f{i}: copy src{i}\n" for i in range(n))
    # A generator's rule is judged by times alone, without the log of an earlier build.
    (root / "build.ninja").write_text(f"rule copy\n  command = cp $in $out\n  generator = 1\n{rules}")
    for i in range(n):
        (root / f"src{i}").write_text("hello")
        (root / f"f{i}").write_text("hello")
    return ["ninja", "-n"] if shutil.which("ninja") else None


def cfengine(root: Path, n: int) -> list[str] | None:
    """cf-agent -n with one `files` promise of its content per file, as CFEngine's own library would write it."""
    promises = "".join(
        f'    "{root}/f{i}" create => "true", edit_template_string => "hello", template_data => "{{}}",\n'
        f'      template_method => "inline_mustache";\n'
        for i in range(n)
    )
    policy = root / "policy.cf"
    policy.write_text(f"bundle agent main\n{{\n  files:\n{promises}}}\n")
    policy.chmod(0o600)
    for i in range(n):
        (root / f"f{i}").write_text("hello")
    return ["cf-agent", "-n", "-K", "-f", str(policy)] if shutil.which("cf-agent") and n <= 10_000 else None


def puppet(root: Path, n: int) -> list[str] | None:
    """puppet apply --noop with one file resource per file."""
    body = "".join(f"file {{ '{root}/f{i}': content => 'hello' }}\n" for i in range(n))
    (root / "site.pp").write_text(body)
    for i in range(n):
        (root / f"f{i}").write_text("hello")
    command = ["puppet", "apply", "--noop", "--vardir", f"{root}/var", "--confdir", f"{root}/etc", "site.pp"]
    return command if shutil.which("puppet") and n <= 10_000 else None


def snakemake(root: Path, n: int) -> list[str] | None:
    """snakemake -n, one wildcard rule for all files: its cheapest form."""
    program = shutil.which("snakemake")
    (root / "Snakefile").write_text(
        f"rule all:\n    input: [f'f{{i}}' for i in range({n})]\n"
        "rule one:\n    input: 'src{i}'\n    output: 'f{i}'\n    shell: 'cp {input} {output}'\n"
    )
    for i in range(n):
        (root / f"src{i}").write_text("hello")
        (root / f"f{i}").write_text("hello")
    return [program, "-n", "--quiet"] if program and n <= 10_000 else None


def dvc(root: Path, n: int) -> list[str] | None:
    """dvc status with one stage per file."""
    program = shutil.which("dvc")
    stages = "".join(f"  s{i}:\n    cmd: cp src{i} f{i}\n    deps: [src{i}]\n    outs: [f{i}]\n" for i in range(n))
    for i in range(n):
        (root / f"src{i}").write_text("hello")
        (root / f"f{i}").write_text("hello")
    if not program or n > 1000:
        return None
    measure([program, "init", "--no-scm", "-q"], root)
    (root / "dvc.yaml").write_text(f"stages:\n{stages}")
    measure([program, "commit", "-f", "-q"], root)
    return [program, "status", "-q"]


PEERS: dict[str, Callable[[Path, int], list[str] | None]] = {
    "make -q": make_,
    "ninja -n": ninja,
    "cf-agent -n": cfengine,
    "puppet apply --noop": puppet,
    "snakemake -n": snakemake,
    "dvc status": dvc,
    "pyinfra --dry": pyinfra,
    "ansible-playbook --check": ansible,
}


def report(sizes: list[int]) -> str:
    """The tables as Markdown."""
    columns: dict[int, dict[str, Figures]] = {}
    peers: dict[str, dict[int, str]] = {}
    for n in sizes:
        print(f"{n:,} …", file=sys.stderr, flush=True)
        root = Path(tempfile.mkdtemp(prefix="lab-bench-"))
        columns[n] = lab(root, n)
        shutil.rmtree(root)
        for name, build in PEERS.items():
            root = Path(tempfile.mkdtemp(prefix="peer-bench-"))
            command = build(root, n)
            figures = measure(command, root) if command else None
            peers.setdefault(name, {})[n] = "–" if figures is None else figures.cell() if not figures.code else "failed"
            shutil.rmtree(root)
    head = "| | " + " | ".join(f"{n:,}" for n in sizes) + " |\n|---|" + "---|" * len(sizes)
    rows = [f"| {name} | " + " | ".join(columns[n][name].cell() for n in sizes) + " |" for name in columns[sizes[0]]]
    costs = [f"{1000 * columns[n]['apply, all new'].wall / n:.2f} ms" for n in sizes]
    rows.append("| apply, wall time per resource | " + " | ".join(costs) + " |")
    other = [f"| {name} | " + " | ".join(cells[n] for n in sizes) + " |" for name, cells in peers.items()]
    other.insert(0, "| lab plan | " + " | ".join(columns[n]["plan, none changed"].cell() for n in sizes) + " |")
    floor = best([sys.executable, "-c", "pass"], REPO)
    helped = best([*LAB, "--help"], REPO, ENV)
    return "\n".join(
        [
            f"Measured with Python {platform.python_version()} on {platform.system()} {platform.machine()}:",
            "CPU seconds (user and system) and peak memory of the whole process.",
            "",
            head,
            *rows,
            "",
            "Nothing to do, beside peers asked the same (– is not installed, or too slow to wait for):",
            "",
            head,
            *other,
            "",
            f"`lab --help` takes {helped.cpu * 1000:.0f} ms CPU, `python -c pass` {floor.cpu * 1000:.0f} ms",
            "(budget: 3 × that and 60 ms).",
        ]
    )


def main() -> None:
    """Prints, and with `--write` keeps, the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="100,1000,10000")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    text = report([int(s) for s in options.sizes.split(",")])
    print(text)
    if options.write:
        written(REPO / "docs/performance.md", "engine", text)


if __name__ == "__main__":
    main()
