"""Keys of settings, each declared once as a field of a dataclass, and the table that is made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from functools import cached_property
from typing import Any

from claudemesh.runtime.settings.rules import Rule

_KEY = "key"


@dataclass(frozen=True, slots=True)
class Flag:
    """An option of the command line; `metavar` names its value, None for a switch.

    `repeated`: the option may be given several times.
    """

    metavar: str | None = None
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a file of settings.

    `field` is the attribute that holds the value. `section` is the [section] of the file, "" for none.
    `reload`: a reload puts a new value in force; otherwise a restart does. The value of a `secret` is never
    shown. `text` is a sentence on the purpose of the key, `default_text` the description of its default.
    """

    field: str
    name: str
    section: str
    rule: Rule
    text: str
    default: Callable[[], Any]
    default_text: str
    reload: bool
    secret: bool
    flag: Flag | None

    @property
    def label(self) -> str:
        """The key in the form of messages, such as `[ipc] http_port`."""
        return f"[{self.section}] {self.name}" if self.section else self.name

    @property
    def option(self) -> str:
        """The name of the flag. That of a switch which is on by default turns it off."""
        is_off = self.flag is not None and self.flag.metavar is None and self.default() is True
        return ("--no-" if is_off else "--") + self.name.replace("_", "-")


def setting(
    rule: Rule,
    text: str,
    *,
    default: Any = MISSING,
    factory: Callable[[], Any] | None = None,
    default_text: str = "",
    section: str = "",
    name: str = "",
    reload: bool = False,
    secret: bool = False,
    flag: Flag | None = None,
) -> Any:
    """Return a dataclass field that is a key. Its name in the file is that of the field, or `name`."""
    metadata = {
        _KEY: {
            "name": name,
            "section": section,
            "rule": rule,
            "text": text,
            "default_text": default_text,
            "reload": reload,
            "secret": secret,
            "flag": flag,
        }
    }
    if factory is not None:
        return field(default_factory=factory, repr=not secret, metadata=metadata)
    return field(default=default, repr=not secret, metadata=metadata)


@dataclass(frozen=True)
class Table:
    """The keys of one file.

    `variables` is the prefix of the environment variables, None when there are none. `words_in_file`: a
    text in the file is parsed as in the environment, so that "8" is a number.
    """

    file: str
    keys: tuple[Key, ...]
    variables: str | None = None
    words_in_file: bool = False

    @cached_property
    def by_field(self) -> dict[str, Key]:
        """The keys by the attribute that holds their value."""
        return {key.field: key for key in self.keys}

    @cached_property
    def by_name(self) -> dict[tuple[str, str], Key]:
        """The keys by section and name."""
        return {(key.section, key.name): key for key in self.keys}

    @cached_property
    def sections(self) -> tuple[str, ...]:
        """The sections of the file in their order; ("",) for a file without any."""
        return tuple(dict.fromkeys(key.section for key in self.keys))

    def variable(self, key: Key) -> str | None:
        """Return the environment variable of a key."""
        return None if self.variables is None else self.variables + key.name.upper()


def table_of(
    file: str, settings: type, *, variables: str | None = None, words_in_file: bool = False
) -> Table:
    """Return the table of a dataclass. Fields that are not made by `setting` are left out."""
    keys = []
    for item in fields(settings):
        found = item.metadata.get(_KEY)
        if found is None:
            continue
        factory = item.default_factory
        default = (lambda value=item.default: value) if factory is MISSING else factory
        keys.append(Key(field=item.name, default=default, **{**found, "name": found["name"] or item.name}))
    return Table(file, tuple(keys), variables, words_in_file)


def differing(table: Table, old: object, new: object) -> list[Key]:
    """Return the keys whose values differ between two objects of settings."""
    return [key for key in table.keys if getattr(old, key.field) != getattr(new, key.field)]
