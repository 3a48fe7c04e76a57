"""`version --verify`: a downloaded file of a release, and every way in which it may not be one."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from claudemesh.client.signed_release import NotVerified, verify_file
from tests.support.cli import Ran, run

PERMISSION, CONFIGURATION, USAGE = 77, 78, 64
MINISIGN = shutil.which("minisign")
pytestmark = pytest.mark.skipif(MINISIGN is None, reason="minisign is not installed")


@dataclass
class Release:
    """A folder with a signed release, and the key pair that signed it."""

    folder: Path
    secret: Path
    public: Path

    @property
    def file(self) -> Path:
        return self.folder / "claudemesh.pyz"

    def sign(self, *options: str) -> None:
        """List the checksum of the file, and sign the list."""
        sums = self.folder / "SHA256SUMS"
        sums.write_text(f"{hashlib.sha256(self.file.read_bytes()).hexdigest()}  {self.file.name}\n")
        minisign("-S", *options, "-s", str(self.secret), "-m", str(sums), "-t", "claudemesh 9.9.9")

    def verify(self, *options: str, key: str | None = None) -> Ran:
        """Run the command."""
        options = ("--key", str(self.public) if key is None else key, *options)
        return run(self.folder, "version", "--verify", str(self.file), *options, "--json")


def minisign(*arguments: str) -> None:
    subprocess.run([str(MINISIGN), *arguments], check=True, capture_output=True, input=b"\n\n")


def key_pair(folder: Path) -> tuple[Path, Path]:
    """Make a key pair without a password."""
    secret, public = folder / "key", folder / "key.pub"
    minisign("-G", "-W", "-s", str(secret), "-p", str(public))
    return secret, public


@pytest.fixture
def release(tmp_path: Path) -> Release:
    folder = tmp_path / "download"
    folder.mkdir()
    made = Release(folder, *key_pair(tmp_path))
    made.file.write_bytes(os.urandom(3000))
    made.sign()
    return made


def test_a_file_of_a_signed_release_is_verified(release: Release) -> None:
    done = release.verify()
    assert (done.code, done.json["comment"]) == (0, "claudemesh 9.9.9")
    assert done.json["sha256"] == hashlib.sha256(release.file.read_bytes()).hexdigest()


def test_the_key_may_be_its_text_and_the_signature_of_the_older_kind(release: Release) -> None:
    release.sign("-l")
    assert release.verify(key=release.public.read_text().splitlines()[1]).code == 0


def test_a_changed_file_is_refused(release: Release) -> None:
    release.file.write_bytes(release.file.read_bytes() + b"x")
    done = release.verify()
    assert (done.code, done.json["error"]) == (PERMISSION, "wrong_checksum")
    assert "Do not run it" in done.json["message"]


@pytest.mark.parametrize("name", ["SHA256SUMS", "SHA256SUMS.minisig"])
def test_every_changed_byte_of_the_list_and_of_its_signature_is_refused(release: Release, name: str) -> None:
    """The untrusted comment, which is the first line of the signature, counts for nothing."""
    path = release.folder / name
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1 if name.endswith("minisig") else 0
    for at in range(first, len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(NotVerified):
            verify_file(release.file, release.public.read_text())
    for length in range(first, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(NotVerified):
            verify_file(release.file, release.public.read_text())


def test_a_release_that_another_key_signed_is_refused(release: Release, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    done = release.verify(key=str(key_pair(other)[1]))
    assert (done.code, done.json["error"]) == (PERMISSION, "other_key")


def test_a_file_that_the_release_does_not_list_is_refused(release: Release) -> None:
    renamed = release.file.rename(release.folder / "other.pyz")
    done = run(release.folder, "version", "--verify", str(renamed), "--key", str(release.public), "--json")
    assert (done.code, done.json["error"]) == (PERMISSION, "not_in_release")


@pytest.mark.parametrize("key", [" ", "x", "RWQ=", "é" * 56, "RW" * 27])
def test_a_text_that_is_no_key_is_wrong_use(release: Release, key: str) -> None:
    done = release.verify(key=key)
    assert (done.code, done.json["error"]) == (USAGE, "invalid_release_key")


def test_without_a_key_and_without_the_list_the_answer_says_what_is_missing(release: Release) -> None:
    done = run(release.folder, "version", "--verify", str(release.file), "--json")
    assert (done.code, done.json["error"]) == (CONFIGURATION, "no_release_key")
    (release.folder / "SHA256SUMS").unlink()
    done = release.verify()
    assert (done.code, done.json["error"]) == (USAGE, "no_checksums")
    assert "SHA256SUMS" in done.json["message"]
