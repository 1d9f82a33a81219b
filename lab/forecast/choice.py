"""Choice: which form of a model a script is given on a machine, on which device, and why. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lab.core.host import GIB, Host
from lab.core.problem import problem
from lab.forecast import fit

FOUR = 4
DEVICES = {"metal": "mps", "cuda": "cuda"}
"""A host's accelerator → PyTorch's name of it; llama.cpp and MLX call mps metal."""
RUN_BY = {"gguf": ("llama.cpp",), "mlx": ("mlx",), "safetensors": ("mlx", "transformers")}
"""Format → the engines that run it."""
_FOUR = re.compile(r"I?Q4(_|$)|MXFP4|NVFP4")


@dataclass(frozen=True, slots=True)
class Form:
    """One form in which a model could be loaded."""

    address: str
    format: str
    """`gguf`, `mlx` or `safetensors`."""
    bits: int | None = None
    """About the bits of a weight; None where it is not quantized."""
    memory: float | None = None
    """Bytes it takes; None where that is not known."""
    squeezed: float | None = None
    """Bytes it takes once MLX has quantized it to 4 bits."""
    made: bool = True
    """Whether it is there already."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is loaded."""

    address: str
    engine: str
    device: str
    """`mps`, `cuda` or `cpu`."""
    why: str
    bits: int = 0
    """Bits to which its weights are quantized while they are loaded; 0 takes them as they are."""


def gguf_bits(kind: str) -> int | None:
    """About the bits of a weight in a GGUF type: 4 for `Q4_K_M` and `MXFP4_MOE`; None for unquantized ones. Pure."""
    if _FOUR.search(kind):
        return FOUR
    found = re.match(r"(?:I?Q|TQ)(\d)", kind)
    return int(found[1]) if found else None


def choose(
    named: Form, params: int | None, others: Sequence[Form], host: Host, above: float, *, engine: str = ""
) -> Choice:
    """The form that is loaded for `named`; a Problem where none is right. Pure.

    What is quantized already is taken as it is. Unquantized weights of more than `above` parameters, or that the host's
    memory cannot hold, are taken in 4 bits: a form of `others` that is declared, else quantized while they are loaded.
    """
    bound = fit.limit(host)

    def holds(form: Form) -> bool:
        return bound is None or form.memory is None or form.memory <= bound.bytes

    def given(form: Form, why: str, bits: int = 0) -> Choice:
        by = _engine(form, host, engine)
        device = "cpu" if by == "mlx" and host.gpu != "metal" else DEVICES.get(host.gpu, "cpu")
        return Choice(form.address, by, device, why, bits)

    large = params is not None and params > above
    if named.bits is not None:
        return given(_held(named, bound), f"its weights are quantized already, to about {named.bits} bits")
    if not large and holds(named):
        known = f"{_count(params)} parameters are not above {_count(above)}"
        return given(named, known if params else "how many parameters it has is not known: it is taken as it is")
    why = (
        f"{_count(params)} parameters are above {_count(above)}"
        if large
        else f"unquantized it needs {_gib(named.memory)}, and {host.name} has {_gib(bound.bytes if bound else None)}"
    )
    if best := next(_four(others, host, engine), None):
        return given(_held(best, bound), f"{why}: {best.address} is its 4-bit form")
    if named.format == "safetensors" and _engine(named, host, engine) == "mlx":
        _held(replace(named, memory=named.squeezed), bound)
        return given(named, f"{why}, and no 4-bit form is declared: MLX quantizes it while it is loaded", FOUR)
    name = named.address.partition(".")[2]
    with_ = "format: mlx, bits: 4" if host.gpu == "metal" and engine != "llama.cpp" else "format: gguf, type: Q4_K_M"
    raise problem(
        f"{named.address} is to be loaded in 4 bits, and no 4-bit form of it is declared",
        why=f"{why}; while they are loaded, only safetensors that MLX runs are quantized",
        do=f"declare one in conf/quantization/{name}_4bit.yaml: {{of: {name}, {with_}}}, and run `lab apply`",
        address=named.address,
    )


def _four(forms: Sequence[Form], host: Host, engine: str) -> Iterator[Form]:
    """The 4-bit forms, best first: what is made, and of those what suits this host; none that its GPU could not run."""
    engines = (engine,) if engine else ("llama.cpp", "transformers") if host.gpu == "cuda" else ("llama.cpp", "mlx")
    runs = [f for f in forms if f.bits == FOUR and set(engines) & set(RUN_BY[f.format])]
    first = "mlx" if host.gpu == "metal" else "gguf"
    yield from sorted(runs, key=lambda f: (not f.made, f.format != first, f.address))


def _held(form: Form, bound: fit.Limit | None) -> Form:
    """The form, where the host's memory holds it; else a Problem."""
    if bound and form.memory is not None and form.memory > bound.bytes:
        raise problem(
            f"{form.address} does not fit this machine's memory",
            why=f"it needs {_gib(form.memory)}; there are {_gib(bound.bytes)} ({bound.name})",
            do="ask for a shorter context; `lab advise` says what fits; see very large models in docs/runners.md",
            address=form.address,
        )
    return form


def _engine(form: Form, host: Host, asked: str) -> str:
    """The engine that runs a form here: the one asked for, else the one for its format and the accelerator."""
    return asked or ("transformers" if form.format == "safetensors" and host.gpu == "cuda" else RUN_BY[form.format][0])


def _count(n: float | None) -> str:
    if n is None:
        return "?"
    return f"{n / 1e9:.3g}B" if n >= 1e9 else f"{n / 1e6:.3g}M"


def _gib(n: float | None) -> str:
    return "?" if n is None else f"{n / GIB:.1f} GiB"
