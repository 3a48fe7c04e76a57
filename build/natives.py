"""The parts of the archive that differ between its targets: native modules, without their debug data."""

from __future__ import annotations

import io
import lzma
import struct
import tarfile
from collections.abc import Mapping

# Nothing of these is read when the program runs.
_UNUSED = (".pyx", ".pxd", ".pxi", ".c", ".h", ".cpp", ".pyi")
# rich imports the first three for source code and Markdown only, and the program shows tables. The others
# served the build of a native module.
_UNUSED_PACKAGES = ("pygments/", "markdown_it/", "mdurl/", "cffi/", "pycparser/")
_ELF64_LITTLE = b"\x7fELF\x02\x01"
_MACHO = (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
_FAT = b"\xca\xfe\xba\xbe"
_CPU = {"x86_64": 0x01000007, "arm64": 0x0100000C}


def is_native(data: bytes) -> bool:
    """Whether these are the bytes of a native module of Linux or macOS."""
    return data.startswith((_ELF64_LITTLE, *_MACHO))


def is_used(path: str) -> bool:
    """Whether the program can need a file of a library.

    Sources of native modules, stubs, and packages that only unused parts of a library import are left out.
    """
    return not path.endswith(_UNUSED) and not path.startswith(_UNUSED_PACKAGES)


def reduced(data: bytes, machine: str) -> bytes:
    """Return a native module as the loader of one machine needs it.

    An ELF file ends after its last segment: sections after it hold symbols and debug data, which are never
    loaded. Of a Mach-O file for several machines the part of this machine remains, whose signature covers it.
    """
    if data.startswith(_ELF64_LITTLE):
        return _without_sections(data)
    if data.startswith(_FAT):
        return _slice_of(data, machine)
    return data


def split(
    trees: Mapping[str, Mapping[str, bytes]],
) -> tuple[dict[str, bytes], dict[str, dict[str, bytes]]]:
    """Part the trees of all targets: the files that all have in common, and the rest of each target.

    Native modules are never common, so that an archive for one target is unpacked as one for many.
    """
    first, *others = trees.values()
    common = {
        path: data
        for path, data in first.items()
        if not is_native(data) and all(other.get(path) == data for other in others)
    }
    own = {
        name: {path: data for path, data in tree.items() if path not in common}
        for name, tree in trees.items()
    }
    return common, own


def of_platforms(own: Mapping[str, Mapping[str, bytes]]) -> dict[str, dict[str, bytes]]:
    """Join the rests of the targets of each platform, in a folder for each Python.

    The builds of a module for several Pythons are alike, so that one solid archive of them is small.
    """
    joined: dict[str, dict[str, bytes]] = {}
    for name, files in own.items():
        version, _, platform = name.partition("-")
        joined.setdefault(platform, {}).update({f"{version}/{path}": data for path, data in files.items()})
    return joined


def packed(files: Mapping[str, bytes], preset: int = 9 | lzma.PRESET_EXTREME) -> bytes:
    """Return files as one solid archive: the same files are the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path, data in sorted(files.items()):
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(data), 0o755 if is_native(data) else 0o644
            archive.addfile(entry, io.BytesIO(data))
    return lzma.compress(buffer.getvalue(), preset=preset)


def _without_sections(data: bytes) -> bytes:
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    end = table + size * count
    for number in range(count):
        offset, _, _, length = struct.unpack_from("<QQQQ", data, table + number * size + 8)
        end = max(end, offset + length)
    head = bytearray(data[:end])
    # No section table: its offset, and its entries' size, count and index of names.
    struct.pack_into("<Q", head, 40, 0)
    struct.pack_into("<HHH", head, 58, 0, 0, 0)
    return bytes(head)


def _slice_of(data: bytes, machine: str) -> bytes:
    (count,) = struct.unpack_from(">I", data, 4)
    for number in range(count):
        cpu, _, offset, size, _ = struct.unpack_from(">IIIII", data, 8 + 20 * number)
        if cpu == _CPU.get(machine):
            return data[offset : offset + size]
    raise SystemExit(f"build/pyz: error: a native module has no part for {machine}")
