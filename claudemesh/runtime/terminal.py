"""Neutralisation of text for a terminal, so that text of another host can neither control it nor mislead
its reader.

Escaped are control characters (C0, DEL, C1), which a terminal executes; direction controls, which reorder a
line; characters without width, which are invisible; and lone surrogates, which cannot be encoded. The
joiners U+200C and U+200D stay, because Persian and many emoji need them.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def safe(value: object) -> str:
    r"""Return a value as one line of text with unsafe characters spelt out, as \x1b or \u202e."""
    return _UNSAFE.sub(lambda match: _escape(match[0]), "" if value is None else str(value))


def safe_lines(text: str) -> str:
    """Return a text of several lines. Tabs, LF and CR LF stay as line structure, the rest is spelt out."""
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    return "\n".join("\t".join(safe(part) for part in line.split("\t")) for line in lines)


def safe_json(text: str) -> str:
    r"""Return JSON that means the same, with unsafe characters as \u200b inside its strings."""
    return _UNSAFE.sub(lambda match: _json_escape(match[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
