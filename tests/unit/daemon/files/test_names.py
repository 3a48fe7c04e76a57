"""Names of received files: each becomes one plain name in one directory."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.daemon.files.names import MAX_NAME_BYTES, safe_name


@pytest.mark.parametrize(
    ("offered", "name"),
    [
        ("build.log", "build.log"),
        ("../../etc/passwd", "passwd"),
        ("/etc/shadow", "shadow"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("..", "file"),
        (".", "file"),
        ("/", "file"),
        ("\u202egnp.exe", "gnp.exe"),
        ("a\nb\x1b[31m.txt", "ab[31m.txt"),
        (".bashrc", "bashrc"),
        ("-rf", "rf"),
        (" . name . ", "name"),
        ("Übersicht.pdf", "Übersicht.pdf"),
        ("con:aux?.txt", "con_aux_.txt"),
    ],
)
def test_an_offered_name_is_made_safe(offered: str, name: str) -> None:
    """Directories, control and bidi characters, leading dots and dashes are removed."""
    assert safe_name(offered) == name


@given(st.text(max_size=400))
def test_no_offered_name_leaves_the_directory_or_misleads(offered: str) -> None:
    """One part of a path, of printable characters, that is not hidden and no option."""
    name = safe_name(offered)
    assert name and "/" not in name and "\\" not in name and name not in (".", "..")
    assert name[0] not in ".- " and len(name.encode()) <= MAX_NAME_BYTES
    assert all(unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in name)
    assert safe_name(name) == name


def test_a_long_name_keeps_its_suffix() -> None:
    """A file is opened by its suffix."""
    name = safe_name("ä" * 300 + ".tar")
    assert name.endswith("ä.tar") and len(name.encode()) <= MAX_NAME_BYTES
