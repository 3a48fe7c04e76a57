"""Sources of shared files, and their encrypted copies."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from claudemesh.daemon.files.source import check_outside, open_source
from claudemesh.daemon.files.spool import Spool, Spooled, SpoolLimits
from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.filestream import CHUNK_BYTES, HEADER_BYTES, OVERHEAD_BYTES, StreamOpener
from claudemesh.runtime.failpoints import install

KEY = bytes(range(32))
LIMITS = SpoolLimits(8 << 20, 16 << 20)


def add(folder: Path, path: Path, limits: SpoolLimits = LIMITS, file_id: str = "f") -> Spooled:
    """Share this file into the spool of this folder."""
    source = open_source(str(path), folder / "home")
    try:
        return Spool(folder / "spool").add(source, file_id, KEY, limits)
    finally:
        os.close(source.descriptor)


def opened(raw: bytes) -> bytes:
    """The content of a copy."""
    opener = StreamOpener(KEY, raw[:HEADER_BYTES])
    step = CHUNK_BYTES + OVERHEAD_BYTES
    parts = [raw[at : at + step] for at in range(HEADER_BYTES, len(raw), step)]
    return b"".join(opener.open(part, is_last=part is parts[-1]) for part in parts)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_the_copy_opens_to_the_file(tmp_path: Path, size: int) -> None:
    """Sizes and hashes are those of the bytes on the disk, and no byte of the file is among them."""
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    found = add(tmp_path, tmp_path / "file")
    raw = (tmp_path / "spool" / "f").read_bytes()
    assert opened(raw) == content
    assert (found.size, found.blob_size) == (size, len(raw))
    assert (found.sha256, found.blob_sha256) == tuple(hashlib.sha256(b).hexdigest() for b in (content, raw))
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("spool", "spool/f")]
    assert modes == [0o700, 0o600]


def test_a_link_to_an_ordinary_file_is_followed(tmp_path: Path) -> None:
    """`latest.log` is a common name for a link."""
    (tmp_path / "file").write_text("text")
    (tmp_path / "latest").symlink_to(tmp_path / "file")
    assert add(tmp_path, tmp_path / "latest").size == 4


def left(folder: Path) -> list[str]:
    spool = folder / "spool"
    return os.listdir(spool) if spool.exists() else []


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs procfs")
def test_a_file_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    """Files of /proc say 0 bytes."""
    with pytest.raises(ProtocolError, match="source_changed"):
        add(tmp_path, Path("/proc/self/status"))
    assert left(tmp_path) == []


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """A log that is written meanwhile has no content of its own."""
    path = tmp_path / "file"
    path.write_bytes(bytes(CHUNK_BYTES))

    def grow(name: str) -> None:
        if name == "share.before_spool_sync":
            with path.open("ab") as file:
                file.write(b"x")

    install(grow)
    try:
        with pytest.raises(ProtocolError, match="source_changed"):
            add(tmp_path, path)
    finally:
        install(None)
    assert left(tmp_path) == []


def test_a_file_that_is_rewritten_while_it_is_read_is_refused(tmp_path: Path) -> None:
    """Its size is the same, and its copy would be of no state that it ever had."""
    path = tmp_path / "file"
    path.write_bytes(bytes(CHUNK_BYTES))
    os.utime(path, ns=(1, 1))

    def rewrite(name: str) -> None:
        if name == "share.before_spool_sync":
            path.write_bytes(b"x" * CHUNK_BYTES)

    install(rewrite)
    try:
        with pytest.raises(ProtocolError, match="source_changed"):
            add(tmp_path, path)
    finally:
        install(None)
    assert left(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs procfs")
def test_a_file_that_cannot_be_read_is_named_and_not_the_spool(tmp_path: Path) -> None:
    """The first page of a process is no memory."""
    with pytest.raises(ProtocolError, match="/proc/self/mem is no ordinary file") as caught:
        add(tmp_path, Path("/proc/self/mem"))
    assert caught.value.code == "not_a_regular_file"
    assert left(tmp_path) == []


def test_the_own_directory_is_known_by_another_name_too(tmp_path: Path) -> None:
    """A second mount of it, or another spelling where the file system ignores case."""
    (tmp_path / "home" / "daemon").mkdir(parents=True)
    (tmp_path / "home" / "daemon" / "keypair.json").write_text("secret")
    other = Path(f"/proc/{os.getpid()}/root{tmp_path}/home/daemon/keypair.json")
    if not other.exists():
        pytest.skip("needs procfs")
    with pytest.raises(ProtocolError, match="own_directory"):
        check_outside(other, tmp_path / "home", "path")


def test_a_hard_link_to_a_file_of_the_own_directory_is_not_shared(tmp_path: Path) -> None:
    """Its path says nothing of where it is from. Another file with two names is shared."""
    key, link = tmp_path / "home" / "daemon" / "demo" / "keypair.json", tmp_path / "link"
    key.parent.mkdir(parents=True)
    key.write_text("secret")
    link.hardlink_to(key)
    with pytest.raises(ProtocolError, match="own_directory"):
        add(tmp_path, link)
    assert left(tmp_path) == []
    (tmp_path / "file").write_text("text")
    (tmp_path / "second").hardlink_to(tmp_path / "file")
    assert add(tmp_path, tmp_path / "second").size == 4


def test_a_file_over_a_limit_leaves_nothing_behind(tmp_path: Path) -> None:
    """The broker's limit of a blob, and the limit of the spool."""
    (tmp_path / "file").write_bytes(bytes(2000))
    with pytest.raises(ProtocolError, match="blob_too_large") as caught:
        add(tmp_path, tmp_path / "file", SpoolLimits(1999, 1 << 20))
    assert caught.value.status == 413
    add(tmp_path, tmp_path / "file", SpoolLimits(4000, 4000), "first")
    with pytest.raises(ProtocolError, match="spool_full") as caught:
        add(tmp_path, tmp_path / "file", SpoolLimits(4000, 4000), "second")
    assert caught.value.status == 507
    assert left(tmp_path) == ["first"]


def test_copies_without_a_row_are_deleted(tmp_path: Path) -> None:
    """A crash before the commit leaves one."""
    (tmp_path / "file").write_text("text")
    for file_id in ("kept", "orphan"):
        add(tmp_path, tmp_path / "file", file_id=file_id)
    assert Spool(tmp_path / "spool").tidy(["kept"]) == 1
    assert left(tmp_path) == ["kept"]


def test_a_full_disk_under_the_spool_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(2000))

    def full(name: str) -> None:
        if name == "share.before_spool_sync":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    install(full)
    try:
        with pytest.raises(ProtocolError, match="insufficient_storage"):
            add(tmp_path, tmp_path / "file")
    finally:
        install(None)
    assert left(tmp_path) == []
    assert add(tmp_path, tmp_path / "file").size == 2000
