"""Config: the parameters of a run, by key, by attribute or by dotted name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


class Config(Mapping[str, Any]):
    """`config.lr`, `config["optimizer"]["lr"]` and `config["optimizer.lr"]` are the same value.

    Setting a value that is not there records it; changing one needs `update(..., allow_change=True)`. After `finish`
    nothing changes any more.
    """

    def __init__(self, values: Mapping[str, Any], told: Callable[[str, Any], None] = lambda k, v: None) -> None:
        object.__setattr__(self, "_values", dict(values))
        object.__setattr__(self, "_told", told)
        object.__setattr__(self, "_frozen", False)

    def __getitem__(self, key: str) -> Any:
        at: Any = self._values
        if key not in at and "." in key:
            for part in key.split("."):
                if not isinstance(at, Mapping) or part not in at:
                    raise KeyError(key)
                at = at[part]
        else:
            at = at[key]
        return Config(at, lambda k, v: self._told(f"{key}.{k}", v)) if isinstance(at, Mapping) else at

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f"the run has no parameter {key!r}; it has {', '.join(self) or 'none'}") from None

    def __setattr__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Config({self._values!r})"

    def update(self, values: Mapping[str, Any], *, allow_change: bool = False) -> None:
        """New parameters are recorded; a different value for an old one is refused unless `allow_change`."""
        if self._frozen:
            raise RuntimeError("the run has finished: its parameters cannot change any more")
        for key, value in values.items():
            if key in self._values and self._values[key] != value and not allow_change:
                old = self._values[key]
                raise ValueError(f"{key} is {old!r} already; say update(..., allow_change=True) to make it {value!r}")
        for key, value in values.items():
            if key not in self._values or self._values[key] != value:
                self._values[key] = value
                self._told(key, value)

    def freeze(self) -> None:
        """From now on nothing changes."""
        object.__setattr__(self, "_frozen", True)

    def plain(self) -> dict[str, Any]:
        """The values as plain nested dictionaries."""
        return dict(self._values)
