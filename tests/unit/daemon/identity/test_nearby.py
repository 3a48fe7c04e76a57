"""Near names: the mistyped one is found, and looking for it costs little among tens of thousands."""

from __future__ import annotations

import difflib
from typing import Any

import pytest

from claudemesh.daemon.identity.nearby import near_names

NAMES = [f"builder-{number}.eu-west" for number in range(20_000)]


@pytest.mark.parametrize(
    ("wanted", "right"),
    [
        ("bulider-77.eu-west", "builder-77.eu-west"),
        ("uilder-12345.eu-west", "builder-12345.eu-west"),
        ("builder-4242.eu-wets", "builder-4242.eu-west"),
        ("aliec", "alice"),
    ],
)
def test_a_mistyped_name_is_found_among_many(wanted: str, right: str) -> None:
    """Wherever the slip is."""
    found = near_names(wanted, [*NAMES, "alice"])
    assert right in found
    assert len(found) <= 3


def test_nothing_near_is_nothing() -> None:
    """Also for the shortest names."""
    assert near_names("zzzz", NAMES) == []
    assert near_names("z", []) == []
    assert near_names("b", ["b2", "c"]) == ["b2"]


def test_few_names_are_compared_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing twenty thousand would hold up the daemon for a second."""
    compared: list[int] = []
    real = difflib.get_close_matches

    def counting(word: str, names: Any, **options: Any) -> Any:
        compared.append(len(names))
        return real(word, names, **options)

    monkeypatch.setattr(difflib, "get_close_matches", counting)
    near_names("bulider-77.eu-west", NAMES)
    assert compared == [64]
