"""Documents: the line of each key, and the error for a file that is not TOML."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.runtime.exits import CONFIGURATION, ExitWith
from claudemesh.runtime.settings.document import lines_of, parse_document, read_own_document

# Each is one value; some have several lines, and lines that look like keys and sections.
VALUES = st.sampled_from(
    [
        "1",
        '"x"',
        "true # a = 1",
        "[1, 2]",
        "[\n  1, # [s]\n\n  2,\n]",
        '"""\n[no]\nno = 1\n"""',
        "'''\na = [\n'''",
        '[\n"""\nx = 1""",\n]',
    ]
)
BETWEEN = st.sampled_from(["", "\n", "# note = 1\n", "\n  # [x]\n\n"])


@given(
    st.lists(st.tuples(BETWEEN, st.lists(st.tuples(BETWEEN, VALUES), max_size=4)), max_size=4),
    st.booleans(),
)
def test_each_key_has_the_line_at_which_it_begins(
    sections: list[tuple[str, list[tuple[str, str]]]], is_crlf: bool
) -> None:
    text, expected = "", {}
    for number, (space, keys) in enumerate(sections):
        text += space
        expected[(f"s{number}",)] = text.count("\n") + 1
        text += f"[s{number}]\n"
        for index, (gap, value) in enumerate(keys):
            text += gap
            expected[(f"s{number}", f"k{index}")] = text.count("\n") + 1
            text += f"k{index} = {value}\n"
    assert lines_of(text.replace("\n", "\r\n") if is_crlf else text) == expected


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("\na.b = 1", ("a", "b"), 2),
        ('\n[ "a" ]\n\n"b c" = 1', ("a", "b c"), 4),
        ("a = { b = 1 }", ("a", "b"), 1),
        ("[[a]]\nb = 1", ("a",), 1),
        ("\n\n[a.b]\nc = 1", ("a",), 3),
    ],
)
def test_other_spellings_are_located(text: str, path: tuple[str, ...], line: int) -> None:
    assert lines_of(text)[path] == line


def test_a_very_long_statement_ends_the_search() -> None:
    lines = lines_of("a = 1\nb = [\n" + "1,\n" * 1000 + "]\nc = 1\n")
    assert lines == {("a",): 1}


def test_a_very_large_document_has_no_lines() -> None:
    assert lines_of("a = 1\n" + "#" * (1 << 20)) == {}


def test_a_deeply_nested_key_is_located_as_part_of_its_section() -> None:
    deep = ".".join("a" * 5000)
    assert lines_of(f"[{deep}]\nb = 1\n") == {("a",): 1, ("a", "a"): 1, ("a", "a", "b"): 2}


@pytest.mark.parametrize("content", [b"[a\n", b"a = \xff", b"a = " + b"9" * 5000, b"a = " + b"[" * 5000])
def test_a_file_that_is_not_toml_is_refused(content: bytes) -> None:
    with pytest.raises(ExitWith, match=r"^x\.toml is not TOML: .*\.$") as caught:
        parse_document(content, "x.toml", "invalid_config")
    assert (caught.value.code, caught.value.error) == (CONFIGURATION, "invalid_config")


def test_a_missing_file_is_none_and_an_unsafe_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    assert read_own_document(path, "invalid_config") is None
    path.write_text("")
    path.chmod(0o622)
    with pytest.raises(ExitWith, match="chmod") as caught:
        read_own_document(path, "invalid_config")
    assert (caught.value.code, caught.value.error) == (CONFIGURATION, "unsafe_file")


def test_a_file_that_cannot_be_read_is_an_error_of_the_system(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    with pytest.raises(ExitWith, match=r"^Cannot read "):
        read_own_document(path, "invalid_config")
