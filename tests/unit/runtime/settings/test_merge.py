"""Merge of settings: precedence, origins, faults, and secrets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.settings.document import Document, parse_document
from claudemesh.runtime.settings.keys import Flag, setting, table_of
from claudemesh.runtime.settings.merge import (
    Merged,
    Source,
    environment_layer,
    file_layer,
    flag_layer,
    merge,
    shown,
    toml,
)
from claudemesh.runtime.settings.rules import ListOf, Number, Text, YesNo, holding


@dataclass(frozen=True)
class Settings:
    """Settings of a program that does not exist."""

    port: int = setting(Number(1, 99), "A port.", default=80, flag=Flag("PORT"))
    names: tuple[str, ...] = setting(ListOf(), "Names.", default=(), flag=Flag("NAME", repeated=True))
    loud: bool = setting(YesNo(), "Loud.", default=False, reload=True)
    token: str | None = setting(
        Text("a long token", holding(lambda text: len(text) > 9)), "T.", default=None, secret=True
    )


TABLE = table_of("x.toml", Settings, variables="X_")
GOOD = {"port": st.integers(1, 99), "loud": st.booleans(), "names": st.just(["a"])}


def merged(
    text: str = "", flags: dict[str, object] | None = None, environment: dict[str, str] | None = None
) -> Merged:
    """All sources together."""
    layer, faults = file_layer(TABLE, parse_document(text.encode(), "x.toml", "code"))
    return merge(
        TABLE,
        flag_layer(TABLE, flags or {}),
        environment_layer(TABLE, environment or {}),
        layer,
        faults=faults,
    )


@given(
    flag=st.none() | st.integers(1, 99),
    variable=st.none() | st.integers(1, 99),
    line=st.none() | st.integers(1, 99),
)
def test_the_strongest_source_wins(flag: int | None, variable: int | None, line: int | None) -> None:
    found = merged(
        "" if line is None else f"port = {line}",
        {"port": flag},
        {} if variable is None else {"X_PORT": str(variable)},
    )
    strongest = next(
        (
            (value, origin)
            for value, origin in ((flag, "--port"), (variable, "X_PORT"), (line, "x.toml:1"))
            if value is not None
        ),
        (80, "default"),
    )
    given = found.given["port"]
    assert (given.value, str(given.origin)) == strongest
    assert found.faults == ()


@given(
    st.fixed_dictionaries({}, optional=GOOD), st.lists(st.sampled_from(["x", "prt", "louder"]), unique=True)
)
def test_every_key_of_a_file_is_a_value_or_a_fault(values: dict[str, Any], unknown: list[str]) -> None:
    text = "".join(
        f"{name} = {toml(value)}\n" for name, value in [*values.items(), *((n, 1) for n in unknown)]
    )
    found = merged(text)
    assert {fault.key for fault in found.faults} == set(unknown)
    from_file = {name for name, given in found.given.items() if given.origin.source is Source.FILE}
    assert from_file == values.keys()
    assert found.given.keys() == {key.field for key in TABLE.keys}


@given(st.dictionaries(st.sampled_from(["port", "names", "loud", "token"]), st.text(max_size=12)))
def test_any_environment_gives_values_that_pass_or_faults(environment: dict[str, str]) -> None:
    found = merged(environment={f"X_{name.upper()}": text for name, text in environment.items()})
    wrong = {fault.key for fault in found.faults}
    assert wrong <= environment.keys()
    for key in TABLE.keys:
        expected = Source.ENVIRONMENT if key.name in environment.keys() - wrong else Source.DEFAULT
        assert found.given[key.field].origin.source is expected


def test_flags_that_were_not_given_do_not_count() -> None:
    assert merged(flags={"port": None, "names": ()}).values == {
        "port": 80,
        "names": (),
        "loud": False,
        "token": None,
    }


def test_a_text_in_a_file_is_no_number_unless_the_table_says_so() -> None:
    assert [fault.key for fault in merged('port = "8"').faults] == ["port"]
    lenient = table_of("x.toml", Settings, words_in_file=True)
    layer, _ = file_layer(lenient, Document("x.toml", {"port": "8"}))
    assert merge(lenient, layer).values["port"] == 8


def test_a_value_that_is_overridden_is_not_checked() -> None:
    assert merged("port = 0", {"port": 5}).faults == ()


def test_all_faults_are_found_in_the_order_of_unknown_keys_then_values() -> None:
    found = merged('prt = 1\nport = 0\n"a b" = 2\nloud = "x"\n')
    assert list(map(str, found.faults)) == [
        "x.toml:1: There is no key prt. Did you mean port?",
        "x.toml:3: There is no key a b. The keys of x.toml are port, names, loud, token.",
        "x.toml:2: port must be a whole number from 1 to 99, not 0.",
        'x.toml:4: loud must be true or false, not "x".',
    ]
    with pytest.raises(ExitWith, match=r"prt.* 3 more faults") as caught:
        found.require("code")
    assert (caught.value.code, caught.value.error) == (CONFIGURATION, "code")


def test_a_secret_is_never_shown() -> None:
    found = merged('token = "hush"\ntokn = "hush"', environment={"X_TOKEN": "hush"})
    assert len(found.faults) == 2
    assert "hush" not in " ".join(map(str, found.faults))
    assert "hush" not in repr(Settings(token="hush" * 3))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        ("a\n", '"a\\n"'),
        (["a", 1, [2, [3]]], '["a", 1, […]]'),
        ({"a": 1}, "{…}"),
        (16**9999, "a number of too many digits"),
        ("\udc80", '"?"'),
    ],
    ids=["boolean", "text", "nested list", "table", "huge number", "not UTF-8"],
)
def test_any_value_can_be_shown(value: object, text: str) -> None:
    assert toml(value, 1) == text


def test_a_long_value_is_cut() -> None:
    assert shown("x" * 1000) == '"' + "x" * 58 + "…"


def test_a_long_name_is_cut_and_not_compared() -> None:
    (fault,) = merged(f"{'x' * 1000} = 1").faults
    assert len(str(fault)) < 200
