"""Backup of a membership: one file, sealed with a passphrase (docs/spec/lifecycle.md, Backup and recovery).

The file is a first line, a header line, and a secretbox. The header names the cost of Argon2id and its salt.
The key is derived from the passphrase and from the header, so that no byte can change unnoticed. The content
has the files of a fixed list, and hooks.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson
from nacl.bindings import (
    crypto_pwhash_alg,
    crypto_pwhash_ALG_ARGON2ID13,
    crypto_pwhash_SALTBYTES,
    crypto_secretbox,
    crypto_secretbox_NONCEBYTES,
    crypto_secretbox_open,
)
from nacl.exceptions import CryptoError

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.ids import check_slug
from claudemesh.runtime.exits import CONFIGURATION, ExitWith

MAGIC: Final = b"claudemesh-backup-v1\n"
MOST_BYTES: Final = 64 << 20
LEAST_PASSPHRASE: Final = 12
# Files of a membership. The API token and the databases are not among them.
NAMES: Final = (
    "keypair.json",
    "keypair-archive.json",
    "keypair.next.json",
    "membership.json",
    "broker_ca.pem",
    "host_fingerprint.json",
    "peers.json",
    "peers.changes",
    "topic_subscriptions.json",
    "topic_keys.json",
    "config.toml",
    "schema_version",
)
NEEDED: Final = ("keypair.json", "membership.json")
_HOOK: Final = re.compile(r"hooks/[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
MOST_FILES: Final = 1024
_KEY_BYTES: Final = 32
_HEADER_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class Cost:
    """Passes and bytes of memory of Argon2id."""

    passes: int = 3
    memory: int = 256 << 20


DEFAULT: Final = Cost()
# A file that demands more is refused, because it could keep a host busy for hours.
HIGHEST: Final = Cost(20, 1 << 30)


@dataclass(frozen=True, slots=True)
class Backup:
    """The content of a backup: the mesh, the time of the backup for display, and the files by name."""

    slug: str
    created_at: str
    files: Mapping[str, bytes]


def is_allowed(name: str) -> bool:
    """Tell whether a backup may hold a file of this name."""
    return name in NAMES or _HOOK.fullmatch(name) is not None


def check_passphrase(passphrase: str) -> None:
    """Raise `ExitWith` 78 for a passphrase that is guessed too easily."""
    if len(passphrase) < LEAST_PASSPHRASE:
        raise ExitWith(
            CONFIGURATION,
            "weak_passphrase",
            f"The passphrase has fewer than {LEAST_PASSPHRASE} characters. Take a longer one: the backup "
            "holds the member's private keys.",
        )


def seal_backup(backup: Backup, passphrase: str, cost: Cost = DEFAULT) -> bytes:
    """Return the bytes of a backup file."""
    content = {
        "schema_version": 1,
        "slug": backup.slug,
        "created_at": backup.created_at,
        "files": {name: base64.b64encode(data).decode() for name, data in backup.files.items()},
    }
    header = _header(secrets.token_bytes(crypto_pwhash_SALTBYTES), cost)
    nonce = secrets.token_bytes(crypto_secretbox_NONCEBYTES)
    sealed = crypto_secretbox(orjson.dumps(content), nonce, _key(passphrase, header))
    return MAGIC + header + nonce + sealed


def open_backup(raw: bytes, passphrase: str, highest: Cost = HIGHEST) -> Backup:
    """Return the content of a backup file. `ExitWith` 78 says why there is none."""
    if not raw.startswith(MAGIC):
        raise ExitWith(
            CONFIGURATION, "not_a_backup", "The file is no claudemesh backup. Nothing was written."
        )
    header, newline, rest = raw[len(MAGIC) :].partition(b"\n")
    header += newline
    cost = _cost_in(header)
    if cost.passes > highest.passes or cost.memory > highest.memory:
        raise ExitWith(
            CONFIGURATION,
            "backup_too_costly",
            f"The backup demands {cost.passes} passes and {cost.memory} bytes of memory to be opened, more "
            f"than {highest.passes} and {highest.memory}. No claudemesh makes such a file. Nothing was "
            "written.",
        )
    nonce, sealed = rest[:crypto_secretbox_NONCEBYTES], rest[crypto_secretbox_NONCEBYTES:]
    try:
        return _content(crypto_secretbox_open(sealed, nonce, _key(passphrase, header)))
    except (CryptoError, ValueError, TypeError, KeyError, ProtocolError) as error:
        raise _unreadable() from error


def _content(raw: bytes) -> Backup:
    value = orjson.loads(raw)
    if value["schema_version"] != 1:
        raise ExitWith(
            CONFIGURATION,
            "schema_too_new",
            "The backup was made by a newer claudemesh. Upgrade this host first. Nothing was written.",
        )
    files = {name: base64.b64decode(text, validate=True) for name, text in value["files"].items()}
    wrong = sorted(name for name in files if not is_allowed(name))
    if wrong or len(files) > MOST_FILES or not all(name in files for name in NEEDED):
        raise ExitWith(
            CONFIGURATION,
            "backup_not_allowed",
            "The backup holds a file that no backup holds, or lacks the keys or the membership. Nothing was "
            "written.",
        )
    return Backup(check_slug(value["slug"]), str(value["created_at"]), files)


def _header(salt: bytes, cost: Cost) -> bytes:
    fields = {"salt": salt.hex(), "passes": cost.passes, "memory": cost.memory}
    return orjson.dumps(fields) + b"\n"


def _cost_in(header: bytes) -> Cost:
    """Return the cost in a header. `ExitWith` for one that no `seal_backup` has made."""
    try:
        value = orjson.loads(header[:_HEADER_BYTES])
        cost = Cost(value["passes"], value["memory"])
        salt = bytes.fromhex(value["salt"])
    except (ValueError, TypeError, KeyError) as error:
        raise _unreadable() from error
    is_whole = type(cost.passes) is int and type(cost.memory) is int and cost.passes > 0 and cost.memory > 0
    if not is_whole or len(salt) != crypto_pwhash_SALTBYTES or _header(salt, cost) != header:
        raise _unreadable()
    return cost


def _key(passphrase: str, header: bytes) -> bytes:
    value = orjson.loads(header)
    derived = crypto_pwhash_alg(
        _KEY_BYTES,
        passphrase.encode(),
        bytes.fromhex(value["salt"]),
        value["passes"],
        value["memory"],
        crypto_pwhash_ALG_ARGON2ID13,
    )
    return hmac.digest(derived, hashlib.sha256(MAGIC + header).digest(), "sha256")


def _unreadable() -> ExitWith:
    return ExitWith(
        CONFIGURATION,
        "backup_unreadable",
        "The backup cannot be opened: the passphrase is wrong, or the file was changed or cut. Nothing was "
        "written.",
    )
