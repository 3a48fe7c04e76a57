"""Rules: values that are allowed pass unchanged, all others are refused, and text is read for each."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.runtime.settings.rules import ListOf, Number, OneOf, Rule, Text, YesNo, holding, some_of

RULES: list[Rule] = [
    Number(0, 9),
    Number(0.5, 9, whole=False),
    YesNo(),
    OneOf(("a", "b")),
    OneOf(("a", "b"), any_case=True),
    Text(),
    Text("a short text", holding(lambda text: len(text) < 3)),
    ListOf(),
    ListOf(once=True),
    some_of(("a", "b")),
]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["a", "A", "b"]),
    st.lists(st.one_of(st.sampled_from(["a", "b"]), st.text(max_size=2), st.integers()), max_size=3),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)


def accepted(rule: Rule, value: object) -> object:
    """The checked value, or the exception class for one that is refused."""
    try:
        return rule.check(value)
    except ValueError:
        return ValueError


@given(rule=st.sampled_from(RULES), value=VALUES)
def test_a_value_that_passed_passes_again_unchanged(rule: Rule, value: object) -> None:
    checked = accepted(rule, value)
    if checked is not ValueError:
        assert rule.check(checked) == checked


@given(rule=st.sampled_from(RULES), text=st.text(max_size=30))
def test_any_text_can_be_read(rule: Rule, text: str) -> None:
    """A text that stands for no value is refused by the check, and not by an error of another kind."""
    accepted(rule, rule.parse(text))


@given(low=st.integers(-9, 9), size=st.integers(0, 9), value=st.integers(-99, 99))
def test_a_number_is_within_its_bounds(low: int, size: int, value: int) -> None:
    rule = Number(low, low + size)
    assert (accepted(rule, value) is not ValueError) == (low <= value <= low + size)


@given(st.integers(0, 10**6))
def test_a_whole_number_is_read_from_its_digits(number: int) -> None:
    assert Number(0, 10**6).check(Number(0, 10**6).parse(str(number))) == number


@given(st.lists(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=5)))
def test_a_list_is_read_from_text_with_commas(items: list[str]) -> None:
    assert ListOf().check(ListOf().parse(" , ".join(items))) == tuple(items)


@pytest.mark.parametrize(
    ("rule", "text", "value"),
    [
        (YesNo(), "TRUE", True),
        (YesNo(), "0", False),
        (YesNo(), "yes", ValueError),
        (Number(0, 99), "9" * 5000, ValueError),
        (Number(0, 99), "٣", ValueError),
        (Number(0, 9, whole=False), "1.5", 1.5),
        (Number(0, 9, whole=False), "nan", ValueError),
        (OneOf(("info",)), "INFO", ValueError),
        (OneOf(("info",), any_case=True), "INFO", "info"),
        (some_of(("a", "b")), "a,c", ValueError),
        (ListOf(once=True), "a,b,a", ("a", "b")),
    ],
)
def test_text_stands_for_a_value(rule: Rule, text: str, value: object) -> None:
    assert accepted(rule, rule.parse(text)) == value
