"""A part of a plan is named by an address, a kind, a ladder or a glob; a name of nothing is a problem."""

from __future__ import annotations

import pytest

from lab.core.address import Address
from lab.core.problem import Problems
from lab.plan.select import matching

KNOWN = [Address(a) for a in ("file.a", "file.ab", "model.a", "quantization.a.Q4_K_M", "quantization.a.Q8_0")]


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("file.a", {"file.a"}),
        ("file", {"file.a", "file.ab"}),
        ("quantization.a", {"quantization.a.Q4_K_M", "quantization.a.Q8_0"}),
        ("*.a*", {"file.a", "file.ab", "model.a", "quantization.a.Q4_K_M", "quantization.a.Q8_0"}),
        ("quantization.a.Q?_0", {"quantization.a.Q8_0"}),
    ],
)
def test_a_pattern_names(pattern: str, found: set[str]) -> None:
    assert matching([pattern], KNOWN) == found


@pytest.mark.parametrize("pattern", ["fil", "file.", "file.b", "a", ""])
def test_a_name_of_nothing_is_a_problem(pattern: str) -> None:
    with pytest.raises(Problems, match="no resource matches"):
        matching([pattern], KNOWN)


def test_names_without_a_glob_are_looked_up_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """All resources are named where all are destroyed: each against each would be a hundred million for 10,000."""
    compared: list[str] = []
    monkeypatch.setattr("lab.plan.select.fnmatchcase", lambda name, pattern: compared.append(pattern))
    known = [Address(f"file.f{i:04}") for i in range(1000)]
    assert matching(known, known) == set(known)
    assert compared == []
