"""Output of commands: text of other hosts cannot control the terminal; pipes get tabs, programs JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.cli import output
from claudemesh.runtime.terminal import safe, safe_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – ünïcode 🛰", "plain – ünïcode 🛰"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\tc", "a\\x0ab\\x09c"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("a\u200bb\x7f", "a\\u200bb\\x7f"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
        ("👩\u200d🚀 می\u200cخواهم", "👩\u200d🚀 می\u200cخواهم"),
        (None, ""),
    ],
)
def test_control_and_direction_characters_are_spelt_out(text: str | None, shown: str) -> None:
    """No terminal injection from a body, a name or a summary."""
    assert output.safe(text) == shown


def test_a_table_in_a_pipe_is_tabs_without_a_head(capsys: pytest.CaptureFixture[str]) -> None:
    """Plain when piped."""
    output.table(("name", "here"), [("alice", "yes"), ("b\tb", None)])
    assert capsys.readouterr().out == "alice\tyes\nb\\x09b\t\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb", "a\tb"),
        ("one\r\ntwo\r\n", "one\ntwo"),
        ("over\rwritten", "over\\x0dwritten"),
        ("one\n\x1b[2Jtwo", "one\n\\x1b[2Jtwo"),
    ],
)
def test_tabs_and_line_ends_of_a_text_stay(text: str, shown: str) -> None:
    """A tab is a tab; a lone CR would overwrite the line."""
    assert output.safe_lines(text) == shown


@given(st.text(st.characters(codec=None)))
def test_neutralised_json_means_the_same_and_holds_nothing_unsafe(text: str) -> None:
    """For any string, lone surrogates included."""
    shown = safe_json(json.dumps({"body": text}, ensure_ascii=False))
    assert json.loads(shown) == {"body": text}
    assert safe(shown) == shown


def test_a_body_in_a_pipe_is_what_was_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """A Makefile keeps its tabs, a file of another system its line ends."""
    output.body("all:\r\n\techo \x1b[1mhello\r\n")
    assert capsys.readouterr().out == "all:\r\n\techo \x1b[1mhello\r\n"
