"""Quantize GGUFs with llama.cpp, in a child: `convert` and `quantize` steps."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab.adapters import child, gguf_convert, gguf_header, runners, store
from lab.adapters.child import Progress
from lab.core import layout
from lab.core.facts import Facts
from lab.core.problem import problem
from lab.core.step import Stage
from lab.core.steps_engines import Convert, Quantize
from lab.forecast import gguf_types


def convert(step: Convert, stage: Stage) -> Facts:
    """The GGUF of unquantized weights lies in the store's `incoming/`, made once for all that share it.

    Where the original is a GGUF already, it is taken as it is.
    """
    root = Path(step.store or stage.store)
    if any(Path(step.source).glob("*.gguf")):
        return {"converted": _taken(runners.gguf(Path(step.source)))}
    holding = Path(layout.incoming(str(root)))
    try:
        holding.mkdir(parents=True, exist_ok=True)
        key = gguf_convert.key(Path(step.source), step.type, step.name)
    except OSError as e:
        raise store.disk(e, root) from e
    out = holding / f"gguf-{key}.gguf"
    with _only(holding / f"gguf-{key}.lock", stage):
        known = _known(out)
        if known is None:
            args = {"source": step.source, "out": str(out), "type": step.type, "name": step.name}
            target = "lab.adapters.gguf_convert:convert"
            known = child.run(
                target, args, log=stage.scratch / "convert.log", watch=stage, what="the conversion to GGUF"
            )
            known |= {"path": str(out), "key": key, "identity": _identity(out)}
            _note(out).write_text(json.dumps(known))
    return {"converted": {k: known[k] for k in ("path", "sha256", "bytes", "type", "key", "memory")}}


def _taken(file: Path) -> Facts:
    """A model's own GGUF; a problem where its weights are quantized already."""
    try:
        kinds = {t.type for t in gguf_header.read(file).tensors}
    except (gguf_header.Broken, OSError) as e:
        raise problem(f"{file.name} cannot be read as a GGUF", why=str(e), do="run `lab verify`") from e
    if quantized := sorted(kinds - gguf_types.UNQUANTIZED):
        raise problem(
            "a GGUF is quantized from unquantized weights only",
            why=f"{file.name} holds {', '.join(quantized)}",
            do="declare the original, or a GGUF in F16, BF16 or F32, as the model",
        )
    return {"path": str(file), "type": "", "bytes": file.stat().st_size, "sha256": "", "key": "", "memory": 0}


def quantize(step: Quantize, stage: Stage) -> Facts:
    """The GGUF of the declared type is a blob, and its view says what it was made from and whether types fell back."""
    root = Path(step.store or stage.store)
    converted = stage.outcome.get("converted") or {}
    source = Path(step.source or converted.get("path", ""))
    if not source.is_file():
        raise problem(f"{source} is not there", why="it was to be quantized", do="run `lab apply` again")
    matrix = step.imatrix or (stage.outcome.get("imatrix") or {}).get("path", "")
    out = stage.scratch / step.file
    args = {
        "source": str(source),
        "out": str(out),
        "type": step.type,
        "imatrix": matrix,
        "tensors": dict(step.tensors),
        "output": step.output,
        "embedding": step.embedding,
        "pure": step.pure,
        "copy": converted.get("type") == step.type and not step.tensors,
    }
    target = "lab.adapters.gguf_quant:work"
    made = child.run(target, args, log=stage.scratch / "quantize.log", watch=stage, what=f"quantization to {step.type}")
    sha256 = store.add(root, out, made["sha256"])
    facts = {**step.facts, "bytes": made["bytes"], "bits_per_weight": made["bits_per_weight"], "tensors": made["types"]}
    if made["fallback"]:
        facts["fallback"] = made["fallback"]
    provenance = {**step.provenance, "digest": step.digest, "facts": facts, "engine": made["engine"]}
    store.view(root, step.out, {step.file: sha256}, provenance)
    stage.remember(store.path(root, sha256), sha256)
    return {"files": {step.file: sha256}, "memory": made["memory"], "seconds": made["seconds"], **facts}


def work(args: Facts, progress: Progress) -> Facts:
    """Quantizes one file with the installed llama.cpp. Runs in a child."""
    import shutil
    import time

    from lab.adapters import gguf_engine

    began = time.perf_counter()
    source, out = Path(args["source"]), Path(args["out"])
    temporary = out.with_name(f".{out.name}.lab-tmp")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary.unlink(missing_ok=True)
    if args["copy"]:
        shutil.copyfile(source, temporary)
        engine = f"lab converter {gguf_convert.VERSION}"
    else:
        gguf_engine.quantize(source, temporary, args)
        engine = gguf_engine.version()
    with open(temporary, "rb+") as f:
        os.fsync(f.fileno())
        sha256 = hashlib.file_digest(f, "sha256").hexdigest()
    os.replace(temporary, out)
    size = out.stat().st_size
    progress(size, size)
    seconds = round(time.perf_counter() - began, 2)
    return {
        "bytes": size,
        "sha256": sha256,
        "engine": engine,
        "seconds": seconds,
        **gguf_engine.types(out, args["type"]),
    }


def _note(out: Path) -> Path:
    return out.with_suffix(".json")


def _identity(path: Path) -> list[int]:
    s = path.stat()
    return [s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns]


def _known(out: Path) -> dict[str, Any] | None:
    """What was noted of a finished conversion; None where there is none or its file is not the one noted."""
    try:
        known: dict[str, Any] = json.loads(_note(out).read_text())
        if known["identity"] == _identity(out) or store.digest(out) == known["sha256"]:
            return {**known, "path": str(out)}
    except (OSError, ValueError, KeyError):
        pass
    return None


@contextmanager
def _only(path: Path, stage: Stage) -> Iterator[None]:
    """One at a time: levels of a ladder that run side by side wait for the first's conversion."""
    import time

    with open(path, "w") as f:
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                stage.check()
                time.sleep(0.05)
        yield


def engine(**_: Mapping[str, Any]) -> Facts:
    """`{version, types}` of the installed llama.cpp. Reads."""
    from lab.adapters import gguf_engine

    return {"version": gguf_engine.version(), "types": sorted(gguf_engine.offered())}
