"""Guest limits: what a guest may take at most. Pure."""

from __future__ import annotations

from pydantic import Field, field_validator

from lab.core.block import Block
from lab.core.units import parse_size


class Limits(Block):
    """What a guest may take at most. Of memory, macOS enforces only what a run holds."""

    memory: str = ""
    """Address space of each process, and what the processes of one run hold together, `8GiB`."""
    processes: int | None = Field(default=None, ge=8)
    """Processes at once."""
    file: str = ""
    """The largest file they may write, `2GB`."""
    disk: str = ""
    """What they may hold on disk, `20GB`: above it no run starts, and within a minute all they run is ended."""
    cpu: int | None = Field(default=None, ge=1)
    """CPU seconds of each process."""
    open_files: int | None = Field(default=None, ge=64)
    """Files open at once in each process."""
    sessions: int = Field(default=4, ge=1)
    """Logins at once."""

    @field_validator("memory", "file", "disk")
    @classmethod
    def _size(cls, value: str) -> str:
        if value:
            parse_size(value)
        return value

    def numbers(self) -> dict[str, int]:
        """The limits that are set: bytes, counts, seconds. Pure."""
        named = {"processes": self.processes, "cpu": self.cpu, "open_files": self.open_files}
        sizes = {k: parse_size(v) for k, v in (("memory", self.memory), ("file", self.file), ("disk", self.disk)) if v}
        return {**sizes, **{k: v for k, v in named.items() if v is not None}}
