"""The byte-code of the archive's modules, as the Python that builds it makes it: the same bytes each time."""

from __future__ import annotations

import importlib.util
import marshal
import sys
import warnings
from collections.abc import Iterable, Mapping
from types import CodeType

from natives import packed
from targets import Target

# No folder of a user has this name, so no file of one is taken for the source.
_PLACE = "claudemesh.pyz/site-packages"
_UNCHECKED = (1).to_bytes(4, "little")


def is_made_for(targets: tuple[Target, ...]) -> bool:
    """Whether an archive carries byte-code: it is for one target, and this Python is of that version.

    The file for many machines has none: it is the same bytes whichever Python builds it.
    """
    return [target.version for target in targets] == [sys.version_info[:2]]


def entries(sources: Mapping[str, bytes], left_out: Iterable[str]) -> dict[str, bytes]:
    """Return the entries of an archive: byte-code, and the modules that it stands for.

    Their name has the magic number: a Python reads byte-code of its own alone.
    """
    name = f"bytecode/{importlib.util.MAGIC_NUMBER.hex()}"
    made = compiled(sources, left_out)
    # The highest preset takes seven times as long, for half a megabyte.
    listed = "".join(f"{path}\n" for path in sorted(sources) if _byte_code_path(path) in made)
    return {f"{name}.tar.xz": packed(made, preset=1), f"{name}.txt": listed.encode()}


def compiled(sources: Mapping[str, bytes], left_out: Iterable[str]) -> dict[str, bytes]:
    """Return the byte-code of modules by its path, without that of some packages and modules.

    It takes the place of the source, which is not unpacked: the files of a first start are half as many. A
    module that this Python cannot compile has none; its import tells why.
    """
    skipped = tuple(left_out)
    found: dict[str, bytes] = {}
    for path, source in sorted(sources.items()):
        if path.endswith(".py") and path not in skipped and path.partition("/")[0] not in skipped:
            data = _byte_code(path, source)
            if data is not None:
                found[_byte_code_path(path)] = data
    return found


def _byte_code_path(path: str) -> str:
    return f"{path}c"


def _byte_code(path: str, source: bytes) -> bytes | None:
    """Return the content of a .pyc file. A traceback names the module by its place in the archive."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = compile(source, f"{_PLACE}/{path}", "exec", dont_inherit=True, optimize=0)
    except SyntaxError:
        return None
    kept = list(_parts(code))
    data = marshal.dumps(code)
    kept.clear()
    return importlib.util.MAGIC_NUMBER + _UNCHECKED + importlib.util.source_hash(source) + data


def _parts(part: object) -> Iterable[object]:
    """Yield an object of compiled code and all within.

    A reference to each is held while it is written: the format marks an object that has more than one, and
    how many a text has would depend on what else this process has loaded.
    """
    yield part
    if isinstance(part, CodeType):
        names = (part.co_names, part.co_varnames, part.co_freevars, part.co_cellvars)
        for inner in (part.co_filename, part.co_name, part.co_qualname, part.co_consts, *names):
            yield from _parts(inner)
    elif isinstance(part, (tuple, frozenset)):
        for inner in part:
            yield from _parts(inner)
