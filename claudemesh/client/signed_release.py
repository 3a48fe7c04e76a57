"""Verification of a downloaded file of a release: its checksum, and the signature of the list of checksums.

The signature has the format of minisign (docs/releasing.md), so `minisign -V` checks the same files.
"""

from __future__ import annotations

import binascii
import hashlib
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path

from claudemesh.client.errors import ClientError, WrongUse
from claudemesh.protocol.keys import SIGNATURE_BYTES, verify_raw
from claudemesh.runtime.exits import CONFIGURATION, PERMISSION

# The public key of the project's releases, as minisign prints it; None until there is one.
RELEASE_KEY: str | None = None
SUMS = "SHA256SUMS"
SIGNATURE = f"{SUMS}.minisig"

_KEY_ALGORITHM = b"Ed"
# Of the list itself, and of its BLAKE2b hash. minisign makes the second one.
_PLAIN, _HASHED = b"Ed", b"ED"
_ID_BYTES = 8
_KEY_BYTES = 32
_COMMENT = "trusted comment: "
_LARGEST = 1 << 20


class NotVerified(ClientError):
    """The file is not one of a signed release."""

    exit_code = PERMISSION


class NoReleaseKey(ClientError):
    """There is no key to verify with."""

    exit_code = CONFIGURATION


@dataclass(frozen=True, slots=True)
class Verified:
    """A file of a release. `comment` is the signed comment of the release."""

    sha256: str
    comment: str


def verify_file(path: Path, key: str | None = None) -> Verified:
    """Verify a file by `SHA256SUMS` and `SHA256SUMS.minisig` in its folder, with a public key of minisign.

    `NotVerified` tells the first thing that is wrong, `NoReleaseKey` that no key is given or built in,
    `WrongUse` that the key is none or that the list is missing. `OSError` when a file cannot be read.
    """
    key = key or RELEASE_KEY
    if key is None:
        raise NoReleaseKey("no_release_key", "This build has no key of releases. Give the key with --key.")
    key_id, public = _key(key)
    sums = _small(path.with_name(SUMS))
    comment = _signed_comment(_small(path.with_name(SIGNATURE)), sums, key_id, public)
    sha256 = _sha256(path)
    listed = _listed(sums).get(path.name)
    if listed is None:
        raise NotVerified("not_in_release", f"{SUMS} is signed, but does not list {path.name}.")
    if listed != sha256:
        text = f"{path.name} differs from the file of the release: its SHA-256 is {sha256}, not {listed}."
        raise NotVerified("wrong_checksum", f"{text} Do not run it; download it again.")
    return Verified(sha256, comment)


def _key(text: str) -> tuple[bytes, bytes]:
    # A key file has a comment above the key.
    raw = _decoded(text.strip().splitlines()[-1] if text.strip() else "")
    if len(raw) != 2 + _ID_BYTES + _KEY_BYTES or raw[:2] != _KEY_ALGORITHM:
        raise WrongUse("invalid_release_key", "The key is no public key of minisign (56 characters, RW…).")
    return raw[2 : 2 + _ID_BYTES], raw[2 + _ID_BYTES :]


def _signed_comment(signature: bytes, sums: bytes, key_id: bytes, public: bytes) -> str:
    """Return the trusted comment of a signature of the list. `NotVerified` when it is not signed."""
    lines = signature.decode("utf-8", "replace").split("\n")
    if len(lines) < 4 or not lines[2].startswith(_COMMENT):
        raise NotVerified("bad_signature", f"{SIGNATURE} is no signature of minisign.")
    raw, of_comment = _decoded(lines[1]), _decoded(lines[3])
    algorithm, signer, found = raw[:2], raw[2 : 2 + _ID_BYTES], raw[2 + _ID_BYTES :]
    if signer != key_id:
        raise NotVerified("other_key", f"{SUMS} is signed with another key than the one of the project.")
    message = hashlib.blake2b(sums).digest() if algorithm == _HASHED else sums
    comment = lines[2].removeprefix(_COMMENT)
    known = algorithm in (_PLAIN, _HASHED) and len(found) == len(of_comment) == SIGNATURE_BYTES
    if not known or not (
        verify_raw(message, found, public) and verify_raw(found + comment.encode(), of_comment, public)
    ):
        raise NotVerified("bad_signature", f"The signature of {SUMS} is not valid. Download both again.")
    return comment


def _decoded(text: str) -> bytes:
    """Return the bytes of a text in base64; none when it is not the one text of these bytes."""
    try:
        raw = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
    return raw if b64encode(raw).decode() == text else b""


def _listed(sums: bytes) -> dict[str, str]:
    """Return the checksums by file name. A line is `<hex>  <name>`."""
    pairs = (line.split(maxsplit=1) for line in sums.decode("utf-8", "replace").splitlines())
    return {pair[1].removeprefix("*"): pair[0] for pair in pairs if len(pair) == 2}


def _small(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except FileNotFoundError as error:
        text = f"There is no {path.name} in {path.parent}. Download {SUMS} and {SIGNATURE} too."
        raise WrongUse("no_checksums", text) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
