"""Files of a console. They are read when a browser asks for them; a program without one keeps nothing."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from claudemesh.runtime.web.replies import Headers

INDEX: Final = "index.html"
_TYPES: Final = {
    "html": b"text/html; charset=utf-8",
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
}
# No script and no style but those of this port, no frame around the page, and no address of it elsewhere.
PAGE_HEADERS: Final[Headers] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Assets:
    """The files of one page: its own, which lie in one package, and those that both pages have in common."""

    def __init__(self, package: str) -> None:
        """The files lie in the folder `static` of `package`."""
        self._folders = tuple(files(name).joinpath("static") for name in (package, __package__))

    def names(self) -> frozenset[str]:
        """Return the names of all files."""
        return frozenset(one.name for folder in self._folders for one in folder.iterdir() if one.is_file())

    def read(self, name: str) -> tuple[bytes, bytes] | None:
        """Return the content type and the bytes of a file, None when there is none of this name."""
        kind = _TYPES.get(name.rpartition(".")[2])
        if kind is None or name not in self.names():
            return None
        for folder in self._folders:
            if (found := folder.joinpath(name)).is_file():
                return kind, found.read_bytes()
        return None
