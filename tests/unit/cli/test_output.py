"""What is shown: text of other hosts cannot drive the terminal; pipes get tabs, programs JSON."""

from __future__ import annotations

import pytest

from claudemesh.cli import output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – ünïcode 🛰", "plain – ünïcode 🛰"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\nb\tc", "a\\x0ab\\x09c"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egpj.exe", "\\x202egpj.exe"),
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
