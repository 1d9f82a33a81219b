"""How long declaring takes, and how much memory: `python tests/benchmarks/bench_declare.py [COUNT …]`.

For each count of `file` resources: CPU seconds and peak MiB of a whole process that loads them, cold (no cache), warm,
with one file changed, with an override not used before, and with every block interpolated (warm). Prints figures;
nothing passes or fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = """
import sys, time, resource, pathlib
start = time.process_time()
from lab.declare import load
imported = time.process_time()
found = load(pathlib.Path(sys.argv[1]), sys.argv[3:], cache=pathlib.Path(sys.argv[2]))
done = time.process_time()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1 << 20)
print(f"{done - imported:.3f} {time.process_time():.3f} {peak:.0f} {len(found.declarations)}")
"""


def make(folder: Path, count: int, *, interpolated: bool) -> None:
    """A lab of `count` small file resources."""
    kind = folder / "conf" / "file"
    kind.mkdir(parents=True)
    (folder / "conf/lab.yaml").write_text(
        "defaults: [_self_, {host: auto}]\nlab: {name: b, id: 0123456789, store: /s}\n"
    )
    for i in range(count):
        path = f"${{lab.store}}/{i}" if interpolated else f"/srv/{i}"
        (kind / f"f{i:06}.yaml").write_text(f'path: {path}\ncontent: "number {i}\\n"\nmode: "0644"\n')


def measure(lab: Path, cache: Path, override: str = "", *, cold: bool = False) -> list[float]:
    """Median of three processes: CPU s of load, CPU s of the process, peak MiB. `{i}` makes each override a new one."""
    runs = []
    for i in range(3):
        if cold:
            shutil.rmtree(cache, ignore_errors=True)
        args = [sys.executable, "-c", CODE, str(lab), str(cache), *filter(None, [override.format(i=i)])]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        out = subprocess.run(args, capture_output=True, text=True, check=True, env=env)
        runs.append([float(x) for x in out.stdout.split()])
    return sorted(runs)[1]


def main(counts: list[int]) -> None:
    """Prints one row per count and state."""
    print(f"{'resources':>9}  {'state':<13} {'load CPU s':>10} {'process CPU s':>13} {'peak MiB':>8}")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            plain, dynamic, cache = Path(folder, "plain"), Path(folder, "dynamic"), Path(folder, "cache")
            make(plain, count, interpolated=False)
            make(dynamic, count, interpolated=True)
            rows = {"cold": measure(plain, cache, cold=True)}
            rows["warm"] = measure(plain, cache)
            changed = plain / "conf/file/f000000.yaml"
            changed.write_text(changed.read_text().replace("number", "changed"))
            rows["one changed"] = measure(plain, cache)
            rows["override"] = measure(plain, cache, "file.f000001.mode='060{i}'")
            shutil.rmtree(cache)
            measure(dynamic, cache)
            rows["interpolated"] = measure(dynamic, cache)
        for state, (load, process, peak, _) in rows.items():
            print(f"{count:>9}  {state:<13} {load:>10.3f} {process:>13.3f} {peak:>8.0f}")


if __name__ == "__main__":
    main([int(a) for a in sys.argv[1:]] or [100, 1_000, 10_000])
