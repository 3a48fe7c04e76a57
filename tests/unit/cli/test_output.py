"""Output of commands: text of other hosts cannot control the terminal; pipes get tabs, programs JSON."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.cli import output
from claudemesh.cli.display import display, wrapped
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


ROWS: list[tuple[object, ...]] = [("alice", True), ("b\tb", None)]


def test_a_table_in_a_pipe_is_tabs_under_the_words_of_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    """Headers always: columns may be added."""
    output.table(("name", "last_seen"), ROWS)
    assert capsys.readouterr().out == "NAME\tLAST SEEN\nalice\tyes\nb\\x09b\t\n"


@pytest.mark.parametrize(("choice", "shown"), [("headers", "alice\tyes\nb\\x09b\t\n"), ("quiet", "yes\n\n")])
def test_headers_can_be_dropped_and_a_quiet_list_is_its_keys(
    choice: str, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For `xargs` and `read`."""
    monkeypatch.setattr(display, choice, choice == "quiet")
    output.table(("name", output.Column("here", is_key=True)), ROWS)
    assert capsys.readouterr().out == shown


def test_a_quiet_answer_is_what_was_made(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id or a link; JSON stays whole."""
    monkeypatch.setattr(display, "quiet", True)
    output.print_answer(False, {"id": "one"}, "made one", next=["claudemesh peers"], made="one")
    output.print_answer(False, {"status": "stopped"}, "stopped it")
    output.print_answer(True, {"id": "one"}, "made one", next=["claudemesh peers"])
    assert capsys.readouterr() == ('one\n{"schema":1,"id":"one","next":["claudemesh peers"]}\n', "")


def test_a_list_in_json_is_an_object_with_its_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    """Lists may get fields beside their items."""
    output.print_items([1, 2], "after-2", exists=True)
    assert capsys.readouterr().out == '{"schema":1,"exists":true,"items":[1,2],"next":"after-2"}\n'


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


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_sentences_break_between_words_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command stays on one line, however long: it is pasted."""
    monkeypatch.setenv("COLUMNS", "40")
    text = "ok       one two three four five six seven\nnext: claudemesh daemon up -d --mesh a-long-name"
    assert wrapped(text, Terminal(), hanging=9).split("\n") == [
        "ok       one two three four five six",
        "         seven",
        "next: claudemesh daemon up -d --mesh a-long-name",
    ]
    assert wrapped(text, io.StringIO(), hanging=9) == text
    link = "claudemesh://join/" + "x" * 100
    assert wrapped(f"a {link}", Terminal()).split("\n")[-1] == link
