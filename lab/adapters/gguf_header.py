"""GGUF headers, read without the weights: bounded in time and memory whatever the bytes are.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little endian).
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Buffer = bytes | memoryview | mmap.mmap

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SIZES = {k: struct.calcsize("<" + v) for k, v in _SCALARS.items()}
_STRING, _ARRAY = 8, 9
MOST_KEYS, MOST_TENSORS, MOST_STRINGS, KEPT = 100_000, 300_000, 8_000_000, 64
LONGEST, MOST_TEXT, MOST_VALUES = 1 << 28, 1 << 27, 1_000_000
"""No real file has more keys, tensors, array strings, bytes of arrays, bytes of texts, or values; arrays up to KEPT
numbers are kept as values."""

# Type id → name, elements per block, bytes per block (ggml.h, gguf-py constants.py).
TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip


class Broken(ValueError):
    """The bytes are no header of this format."""


class Short(Broken):
    """The buffer ends inside the header; more bytes would help."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: name, elements per dimension, type name, bytes."""

    name: str
    shape: tuple[int, ...]
    type: str
    bytes: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        n = 1
        for s in self.shape:
            n *= s
        return n


@dataclass(frozen=True, slots=True)
class Header:
    """What a GGUF file says of itself. Long arrays stand as `{length, sha256}`."""

    version: int
    values: Mapping[str, Any]
    tensors: tuple[Tensor, ...]
    size: int
    """Bytes of the header itself."""


def read(path: Path) -> Header:
    """The header of a file. Raises Broken. Reads."""
    with open(path, "rb") as f:
        try:
            with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return parse(data)
        except ValueError as e:
            if isinstance(e, Broken):
                raise
            raise Broken("the file is empty") from e


def parse(data: Buffer) -> Header:
    """The header at the start of `data`. Raises Short where it ends too early, Broken where it is none. Pure."""
    try:
        return _Parser(data).header()
    except (struct.error, IndexError) as e:
        raise Short("the file ends inside its header") from e
    except (UnicodeDecodeError, OverflowError, RecursionError) as e:
        raise Broken("the header is damaged") from e


class _Parser:
    def __init__(self, data: Buffer) -> None:
        self.data, self.at, self.end = data, 0, len(data)
        self.strings = self.texts = self.arrays = self.values = 0

    def number(self, letter: str, size: int) -> Any:
        (value,) = struct.unpack_from("<" + letter, self.data, self.at)
        self.at += size
        return value

    def skip(self, size: int) -> None:
        self.at += size
        if self.at > self.end:
            raise Short("the file ends inside its header")

    def text(self) -> str:
        size = self.number("Q", 8)
        self.texts += size
        if self.texts > MOST_TEXT:
            raise Broken(f"names and texts in the header have {self.texts} bytes")
        start = self.at
        self.skip(size)
        return bytes(self.data[start : self.at]).decode("utf-8", "replace")

    def header(self) -> Header:
        if bytes(self.data[:4]) != b"GGUF":
            raise Broken("it does not begin with GGUF")
        self.at = 4
        version = self.number("I", 4)
        if version in (2 << 24, 3 << 24):
            raise Broken("it is big-endian, which no engine here reads")
        if version not in (2, 3):
            raise Broken(f"version {version} of GGUF is not known")
        tensors, keys = self.number("Q", 8), self.number("Q", 8)
        if keys > MOST_KEYS or tensors > MOST_TENSORS:
            raise Broken(f"the header claims {keys} keys and {tensors} tensors")
        values = {}
        for _ in range(keys):
            name = self.text()
            values[name] = self.value(self.number("I", 4), 0)
        return Header(version, values, tuple(self.tensor() for _ in range(tensors)), self.at)

    def value(self, kind: int, depth: int) -> Any:
        self.values += 1
        if self.values > MOST_VALUES:
            raise Broken(f"the header holds {self.values} values")
        if kind == _STRING:
            return self.text()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind], _SIZES[kind])
        if kind != _ARRAY or depth > 3:
            raise Broken(f"value type {kind} is not known")
        inner, count = self.number("I", 4), self.number("Q", 8)
        start = self.at
        if inner in _SCALARS:
            if count <= KEPT:
                return [self.number(_SCALARS[inner], _SIZES[inner]) for _ in range(count)]
            self.skip(count * _SIZES[inner])
        elif inner == _STRING:
            self.skim(count)
        else:
            if count > 1000:
                raise Broken("an array of arrays is too long")
            return [self.value(inner, depth + 1) for _ in range(count)]
        self.arrays += self.at - start
        if self.arrays > LONGEST:
            raise Broken(f"arrays in the header have {self.arrays} bytes")
        return {"length": count, "sha256": hashlib.sha256(self.data[start : self.at]).hexdigest()}

    def skim(self, count: int) -> None:
        """Past `count` strings, without making one."""
        self.strings += count
        if self.strings > MOST_STRINGS:
            raise Broken(f"the header claims {self.strings} strings")
        data, at, unpack = self.data, self.at, struct.Struct("<Q").unpack_from
        for _ in range(count):
            at += 8 + unpack(data, at)[0]
        self.at = at
        self.skip(0)

    def tensor(self) -> Tensor:
        name, dimensions = self.text(), self.number("I", 4)
        if dimensions > 8:
            raise Broken(f"tensor {name!r} claims {dimensions} dimensions")
        shape = tuple(self.number("Q", 8) for _ in range(dimensions))
        kind = self.number("I", 4)
        self.skip(8)
        label, block, size = TYPES.get(kind, (f"type {kind}", 1, 0))
        elements = 1
        for n in shape:
            elements *= n
        if elements > 1 << 50:
            raise Broken(f"tensor {name!r} claims {elements} elements")
        return Tensor(name, shape, label, elements // block * size)
