"""Rules for the values of settings: each checks a value, parses it from text, and describes the allowed
values."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from claudemesh.runtime.digits import whole_number

_DECIMAL = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
_WORDS = {"true": True, "1": True, "false": False, "0": False}


class Rule(Protocol):
    """Rule for a value."""

    def check(self, value: object) -> Any:
        """Return the value in the form that the program uses. Raise `ValueError` when it is not allowed.

        The text of the error is a sentence for the user that repeats no part of the value, or is empty.
        """
        ...

    def parse(self, text: str) -> object:
        """Return the value for a text of the environment or of a flag, not checked yet.

        A text that cannot be parsed is returned unchanged, so that `check` refuses it.
        """
        ...

    def allowed(self) -> str:
        """Return the allowed values in words, as a noun that follows `must be`."""
        ...


def listed(text: str) -> list[str]:
    """Split a text at its commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


@dataclass(frozen=True, slots=True)
class Number:
    """A number from `low` to `high`, both included."""

    low: float
    high: float
    whole: bool = True

    def check(self, value: object) -> Any:
        """Return the number. A boolean is not a number."""
        kinds = (int,) if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not self.low <= value <= self.high:
            raise ValueError
        return value

    def parse(self, text: str) -> object:
        """Return the number of plain ASCII digits, with a point and a sign where they are allowed."""
        if self.whole:
            number = whole_number(text, 10**18)
            return text if number is None else number
        return float(text) if _DECIMAL.fullmatch(text) else text

    def allowed(self) -> str:
        """Return the bounds."""
        return f"a {'whole ' if self.whole else ''}number from {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class YesNo:
    """A boolean."""

    def check(self, value: object) -> Any:
        """Return the boolean. 0 and "no" are not booleans."""
        if not isinstance(value, bool):
            raise ValueError
        return value

    def parse(self, text: str) -> object:
        """Parse true, false, 1 or 0, in upper or lower case."""
        return _WORDS.get(text.lower(), text)

    def allowed(self) -> str:
        """Return both values in words."""
        return "true or false"


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words; `any_case`: upper and lower case are the same word."""

    choices: tuple[str, ...]
    any_case: bool = False

    def check(self, value: object) -> Any:
        """Return the word in its listed spelling."""
        word = value.lower() if self.any_case and isinstance(value, str) else value
        if word not in self.choices:
            raise ValueError
        return word

    def parse(self, text: str) -> object:
        """Return the text."""
        return text

    def allowed(self) -> str:
        """List the words."""
        return "one of " + ", ".join(self.choices)


def holding(holds: Callable[[str], bool]) -> Callable[[str], object]:
    """Return the check of a text for which `holds` is true. Its errors have no sentence."""

    def check(text: str) -> None:
        if not holds(text):
            raise ValueError

    return check


@dataclass(frozen=True, slots=True)
class Text:
    """A text that `check_text` accepts, described by `noun`. It has no NUL, as no path and no host has one.

    `check_text` raises `ValueError` as `Rule.check` does.
    """

    noun: str = "a text"
    check_text: Callable[[str], object] = lambda text: None

    def check(self, value: object) -> Any:
        """Return the text."""
        if not isinstance(value, str) or "\0" in value:
            raise ValueError
        self.check_text(value)
        return value

    def parse(self, text: str) -> object:
        """Return the text."""
        return text

    def allowed(self) -> str:
        """Return the noun."""
        return self.noun


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of texts that `check_text` accepts each; in the environment with commas between them.

    `check_text` raises `ValueError` as `Rule.check` does. `once`: a text that is repeated counts once.
    """

    noun: str = "a list of strings"
    check_text: Callable[[str], object] = lambda text: None
    once: bool = False

    def check(self, value: object) -> Any:
        """Return the texts as a tuple."""
        if not isinstance(value, list | tuple):
            raise ValueError
        for item in value:
            if not isinstance(item, str) or "\0" in item:
                raise ValueError
            self.check_text(item)
        return tuple(dict.fromkeys(value)) if self.once else tuple(value)

    def parse(self, text: str) -> object:
        """Return the parts between the commas."""
        return listed(text)

    def allowed(self) -> str:
        """Return the noun."""
        return self.noun


def some_of(choices: tuple[str, ...]) -> ListOf:
    """Return the rule for a list of any of a few words."""
    return ListOf("a list of any of " + ", ".join(choices), holding(choices.__contains__))


@dataclass(frozen=True, slots=True)
class WordsByName:
    """A section of its own with one of a few words for each name. Names are compared in lower case."""

    choices: tuple[str, ...]

    def check(self, value: object) -> Any:
        """Return the words by name."""
        if not isinstance(value, dict) or not all(word in self.choices for word in value.values()):
            raise ValueError
        return {name.lower(): word for name, word in value.items()}

    def parse(self, text: str) -> object:
        """Return the text: a file alone has sections."""
        return text

    def allowed(self) -> str:
        """Describe the section."""
        return "a section with lines NAME = WORD, each word one of " + ", ".join(self.choices)
