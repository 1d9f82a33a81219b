"""Every form of Hydra's sweep grammar is taken as Hydra means it, or refused with a reason; so is every YAML space.

Proves S3-5.2-1 (a bad range fails validation).
"""

from __future__ import annotations

from typing import Any

import pytest

from lab.core.problem import Problems
from lab.core.rules import Rule
from lab.core.space import Space, dimension, nested
from lab.runs.space import parse

TAKEN = {
    "a=1,2,3": [1, 2, 3],
    "a=choice(8,16,32)": [8, 16, 32],
    "a=choice(x)": ["x"],
    "+a=1,2": [1, 2],
    "++a=1,2": [1, 2],
    "params.a=1,2": [1, 2],
    'a="x,y",z': ["x,y", "z"],
    "a=null,true,1.5,txt": [None, True, 1.5, "txt"],
    "a=str(1,2)": ["1", "2"],
    "a=int(1.5,2.5)": [1, 2],
    "a=bool(0,1)": [False, True],
    "a=sort(3,1,2)": [1, 2, 3],
    "a=sort(3,1,2,reverse=true)": [3, 2, 1],
    "a=shuffle(1,2,3)": [1, 2, 3],
    "a=choice([1,2],[3])": [[1, 2], [3]],
    "a=[],['x y',[true]],null": [[], ["x y", [True]], None],
    "a=range(4)": {"type": "int", "low": 0, "high": 3, "step": 1},
    "a=range(1,5)": {"type": "int", "low": 1, "high": 4, "step": 1},
    "a=range(8,65,8)": {"type": "int", "low": 8, "high": 64, "step": 8},
    "a=range(10,0,-2)": {"type": "int", "low": 2, "high": 10, "step": 2},
    "a=range(0,0.5,step=0.1)": {"type": "float", "low": 0.0, "high": 0.4, "step": 0.1},
    "a=shuffle(range(1,5))": {"type": "int", "low": 1, "high": 4, "step": 1},
    "a=range(0,1,0.3)": {"type": "float", "low": 0.0, "high": 0.9, "step": 0.3},
    "a=float(range(1,4))": {"type": "float", "low": 1.0, "high": 3.0, "step": 1.0},
    "a=tag(log,range(1,9))": {"type": "int", "low": 1, "high": 8, "log": True},
    "a=interval(0,1)": {"type": "float", "low": 0.0, "high": 1.0},
    "a=interval(1,8)": {"type": "float", "low": 1.0, "high": 8.0},
    "a=int(interval(1,8))": {"type": "int", "low": 1, "high": 8},
    "a=tag(int,interval(1,8))": {"type": "int", "low": 1, "high": 8},
    "a=tag(log,interval(1e-5,1e-2))": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "a=tag(log,int(interval(256,8192)))": {"type": "int", "low": 256, "high": 8192, "log": True},
}
FIXED = {"a=7": 7, "a=[1,2]": [1, 2], "a={b: 1}": {"b": 1}, "a='x y'": "x y", "a=": "", "a=null": None}
REFUSED = {
    "a=glob(*)": "config groups",
    "a=choice({b:1},{b:2})": "among mappings",
    "a=[{b:1}],[1]": "among mappings",
    "~a": "cannot be deleted",
    "a/b=x,y": "config group",
    "a@c=x,y": "config group",
    "a=range(5,1)": "empty",
    "a=tag(log,range(1,9,2))": "logarithm",
    "a=tag(log,choice(1,2))": "no tag",
    "a=tag(foo,interval(0,1))": "tag `foo`",
    "a=tag(int,interval(0.5,2))": "whole",
    "a=tag(int,float,interval(1,2))": "both",
    "a=interval(1,0)": "below 1",
    "a=interval(0,inf)": "numbers",
    "a=tag(log,interval(0,1))": "above 0",
    "a=choice(${b},2)": "interpolation",
    "a=${oc.env:HOME}": "interpolation",
    "a=[1,'${b}']": "interpolation",
    "a=shuffle([1,2,3])": "another order",
    "=3": "no parameter",
    "a=1,": "grammar",
    "a=choice()": "empty choice",
    "a=str(range(1,5))": "only be cast",
    "a=choice(range(1,3),4)": "incompatible",
    "a=append(1)": "Unknown function",
    "~a=1": "cannot be deleted",
    "a=interval(1": "grammar",
    "a=nofunction(1,2)": "grammar",
    "justaword": "grammar",
}


@pytest.mark.parametrize("word", TAKEN)
def test_a_form_is_taken(word: str) -> None:
    """It means what Hydra means; ranges end before their stop, ours include both ends."""
    found = parse([word]).space["a"]
    assert found == TAKEN[word]
    assert [type(v) for v in found] == [type(v) for v in TAKEN[word]]
    Space.of({"a": found})


@pytest.mark.parametrize("word", [w for w in TAKEN if "interval" not in w])
def test_a_countable_form_has_the_values_hydra_gives(word: str) -> None:
    """Its points are those of Hydra's own sweep iterator."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Transformer

    override = OverridesParser.create().parse_override(word)
    theirs: Any = list(override.sweep_iterator(transformer=Transformer.identity))

    def plain(value: Any) -> Any:
        return [plain(v) for v in value] if isinstance(value, list) else getattr(value, "text", value)

    theirs = [plain(v) for v in theirs]
    theirs = [round(v, 12) if isinstance(v, float) else v for v in theirs]  # it adds the step again and again
    ours = dimension("a", parse([word]).space["a"]).values()
    assert sorted(map(repr, ours)) == sorted(map(repr, theirs))


@pytest.mark.parametrize("word", FIXED)
def test_a_value_is_fixed(word: str) -> None:
    """What is no sweep is a value for every trial."""
    found = parse([word])
    assert (found.fixed, found.space) == ({"a": FIXED[word]}, {})


@pytest.mark.parametrize("word", REFUSED)
def test_a_form_is_refused(word: str) -> None:
    """The problem names the word and says why."""
    with pytest.raises(Problems) as caught:
        parse([word])
    (one,) = caught.value.problems
    assert word in one.summary
    assert REFUSED[word] in f"{one.summary} {one.why}"


def test_all_that_is_wrong_is_told_at_once() -> None:
    """Three bad words are three problems; the same parameter twice is one."""
    with pytest.raises(Problems) as caught:
        parse(["a=glob(*)", "b=range(2,1)", "c=1,2", "c=3,4"])
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"low": 2, "high": 1}, "above high"),
        ({"low": 0, "high": 1, "log": True}, "above 0"),
        ({"low": 1, "high": 8, "log": True, "step": 2}, "do not go together"),
        ({"low": 0, "high": 1, "step": 0.3}, "the last value is 0.9"),
        ({"low": 0, "high": 10, "step": -1}, "above 0"),
        ({"low": 0.5, "high": 2, "type": "int"}, "whole"),
        ({"low": 0, "hihg": 1}, "did you mean `high`"),
        ({"low": "a", "high": 1}, "must be a number"),
        ({"low": 0}, "needs `high`"),
        ({"low": 0, "high": float("inf")}, "must be a number"),
        ([], "list its values"),
        ([1, 1], "twice"),
        ([{"b": 1}, {"b": 2}], "among mappings"),
        ([[1, [float("nan")]], [2]], "no value to try"),
        ([[1], [1]], "twice"),
        (["json:[1]", "b"], "stands for a list"),
        ("interval(0,1)", "command line"),
        (3, "write [3]"),
        ({"choice": [1, 2], "log": True}, "does not go"),
    ],
)
def test_a_bad_yaml_space_is_refused(value: Any, said: str) -> None:
    """With what to write instead."""
    with pytest.raises(ValueError, match="a") as caught:
        dimension("a", value)
    assert said in str(caught.value)


@pytest.mark.parametrize("values", [[1, True], [0, 0.0], [False, 2, 0]])
def test_choices_that_a_study_cannot_tell_apart_are_refused(values: list[Any]) -> None:
    """Optuna keeps the place of the first that is equal: a trial would be kept as one it was not."""
    with pytest.raises(ValueError, match="are one value"):
        dimension("a", values)


def test_a_conditional_space_has_each_point_once() -> None:
    """A parameter under a condition is left out elsewhere, and so are those below it."""
    space = Space.of(
        {
            "momentum": {"choice": [0.5, 0.9], "when": {"opt": "sgd"}},
            "opt": ["sgd", "adam"],
            "nesterov": {"choice": [True, False], "when": {"momentum": 0.9}},
        }
    )
    points = list(space.points())
    assert points == [
        {"opt": "sgd", "momentum": 0.5},
        {"opt": "sgd", "momentum": 0.9, "nesterov": True},
        {"opt": "sgd", "momentum": 0.9, "nesterov": False},
        {"opt": "adam"},
    ]
    assert space.size() == 4


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"a": {"choice": [1], "when": {"b": 1}}}, "not searched"),
        ({"a": {"choice": [1], "when": {"b": 3}}, "b": [1, 2]}, "never happens"),
        ({"a": {"choice": [1], "when": {"b": 1}}, "b": {"choice": [1], "when": {"a": 1}}}, "wait for each other"),
        ({"a": {"choice": [1], "when": {"b": 0.5}}, "b": {"low": 0.0, "high": 1.0}}, "continuous"),
    ],
)
def test_a_bad_condition_is_refused(block: Any, said: str) -> None:
    """A parent that is missing, continuous, never so, or waits for its child."""
    with pytest.raises(ValueError, match=said):
        Space.of(block)


def test_rules_compare_and_run_nothing() -> None:
    """Arithmetic holds or not by how much; anything else is refused."""
    rule = Rule("model.width * layers <= 1024")
    assert rule.names == {"model.width", "layers"}
    assert rule.excess({"model.width": 512, "layers": 4}) == 1024
    assert rule.excess({"model.width": 256, "layers": 4}) == 0
    assert Rule("a < b").excess({"a": 2, "b": 2}) > 0
    for bad in (
        "a",
        "a <= b <= c",
        "__import__('os').system('x') <= 1",
        "a[0] <= 1",
        "a <= 'x'",
        "open(a) <= 1",
        "a <=",
    ):
        with pytest.raises(ValueError, match="`"):
            Rule(bad)


def test_dotted_names_set_nested_parameters() -> None:
    """Branches beside the changed one stay as they are."""
    before = {"opt": {"lr": 1, "name": "sgd"}, "x": 2}
    assert nested(before, {"opt.lr": 3}) == {"opt": {"lr": 3, "name": "sgd"}, "x": 2}
    assert before["opt"] == {"lr": 1, "name": "sgd"}


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"low": 0, "high": 1e308, "step": 1e-300}, "is too small"),
        ({"low": 0, "high": 1 << 70}, "beyond 2"),
        ({"low": 1, "high": 9, "log": 1}, "`log` is true or false"),
    ],
)
def test_a_range_that_cannot_be_counted_is_refused(block: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dimension("a", block)


def test_a_wide_range_is_counted_without_being_listed() -> None:
    """A billion billion values above a condition: listing them would take all memory."""
    wide = {"low": 1, "high": 10**18}
    space = Space.of({"a": wide, "b": {"choice": [1, 2, 3], "when": {"a": [5, 7]}}, "c": {"choice": [1, 2]}})
    assert space.size() == (10**18 - 2 + 2 * 3) * 2
    with pytest.raises(ValueError, match="never happens"):
        Space.of({"a": wide, "b": {"choice": [1], "when": {"a": 10**18 + 1}}})


def test_counting_and_listing_agree() -> None:
    space = Space.of(
        {
            "a": [1, 2, 3],
            "b": {"choice": ["x", "y"], "when": {"a": [1, 2]}},
            "c": {"low": 0, "high": 1, "step": 0.25, "when": {"b": "x", "a": 2}},
            "d": {"low": 1, "high": 4, "when": {"c": [0.25, 1.0]}},
        }
    )
    assert space.size() == sum(1 for _ in space.points())
