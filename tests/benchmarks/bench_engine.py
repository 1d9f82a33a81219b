"""The engine at 100 … 100,000 `file` resources, beside peers that pip or apt installs, in one run.

    python -m tests.benchmarks.bench_engine [--sizes 100,1000,10000] [--peers] [--write]

Prints Markdown; `--write` puts it into docs/performance.md. With `--peers` it is Lab's plan beside theirs: each is
given the same N small files to keep, already as declared, and asked what it would do. A peer that is not installed is
named and left out.
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


def ours(root: Path, n: int) -> list[str]:
    """lab plan, its caches warm."""
    (root / "conf/file").mkdir(parents=True)
    (root / "conf/lab.yaml").write_text(f"lab: {{name: bench, id: 00000000-bench, store: {root}/store}}\n")
    for i in range(n):
        (root / f"conf/file/f{i:06}.yaml").write_text(f"path: {root}/out/{i // 1000}/f{i}.txt\ncontent: hello{i}\n")
    for words in (["-q", "apply", "--yes"], ["plan"], ["plan"]):
        measure([*LAB, *words], root, ENV)
    return [*LAB, "plan"]


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
    """Lab's own figures as Markdown."""
    columns: dict[int, dict[str, Figures]] = {}
    for n in sizes:
        root = Path(tempfile.mkdtemp(prefix="lab-bench-"))
        columns[n] = lab(root, n)
        shutil.rmtree(root)
    rows = [f"| {name} | " + " | ".join(columns[n][name].cell() for n in sizes) + " |" for name in columns[sizes[0]]]
    costs = [f"{1000 * columns[n]['apply, all new'].wall / n:.2f} ms" for n in sizes]
    rows.append("| apply, wall time per resource | " + " | ".join(costs) + " |")
    floor = best([sys.executable, "-c", "pass"], REPO)
    helped = best([*LAB, "--help"], REPO, ENV)
    return "\n".join(
        [
            f"Measured with Python {platform.python_version()} on {platform.system()} {platform.machine()}:",
            "CPU seconds (user and system) and peak memory of the whole process.",
            "",
            _head(sizes),
            *rows,
            "",
            f"`lab --help` takes {helped.cpu * 1000:.0f} ms CPU, `python -c pass` {floor.cpu * 1000:.0f} ms",
            "(budget: 3 × that and 60 ms).",
        ]
    )


def beside(sizes: list[int]) -> str:
    """A plan with nothing to do beside what peers take for the same, in one run, as Markdown."""
    cells: dict[str, list[str]] = {}
    for n in sizes:
        for name, build in {"lab plan": ours, **PEERS}.items():
            root = Path(tempfile.mkdtemp(prefix="peer-bench-"))
            command = build(root, n)
            print(f"{n:,}  {name}", file=sys.stderr, flush=True)
            figures = measure(command, root, ENV if build is ours else None) if command else None
            told = "–" if figures is None else figures.cell() if not figures.code else "failed"
            cells.setdefault(name, []).append(told)
            shutil.rmtree(root)
    rows = [f"| {name} | " + " | ".join(told) + " |" for name, told in cells.items()]
    title = "Nothing to do, beside peers asked the same in the same run (– is not installed, or too slow to wait for):"
    return "\n".join([title, "", _head(sizes), *rows])


def _head(sizes: list[int]) -> str:
    return "| | " + " | ".join(f"{n:,}" for n in sizes) + " |\n|---|" + "---|" * len(sizes)


def main() -> None:
    """Prints, and with `--write` keeps, the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="100,1000,10000")
    parser.add_argument(
        "--peers", action="store_true", help="Lab's plan beside its peers, instead of Lab's own figures"
    )
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    sizes = [int(s) for s in options.sizes.split(",")]
    text = beside(sizes) if options.peers else report(sizes)
    print(text)
    if options.write:
        written(REPO / "docs/performance.md", "peers" if options.peers else "engine", text)


if __name__ == "__main__":
    main()
