"""The form of a backup: nothing of it changes unnoticed, and no file costs more than a bound."""

from __future__ import annotations

import base64

import orjson
import pytest

from claudemesh.home.backup import (
    HIGHEST,
    MAGIC,
    Backup,
    Cost,
    check_passphrase,
    is_allowed,
    open_backup,
    seal_backup,
)
from claudemesh.runtime.exits import ExitWith

CHEAP = Cost(1, 8192)
PASSPHRASE = "correct horse battery"
CONTENT = Backup("team", "2026-01-02T03:04:05.678Z", {"keypair.json": b"{}", "membership.json": b"\x00\xff"})


def test_a_backup_reads_back_with_its_passphrase_alone() -> None:
    raw = seal_backup(CONTENT, PASSPHRASE, CHEAP)
    assert open_backup(raw, PASSPHRASE) == CONTENT
    with pytest.raises(ExitWith) as caught:
        open_backup(raw, f"{PASSPHRASE} ")
    assert caught.value.error == "backup_unreadable"
    assert "Nothing was written." in caught.value.message


def test_every_byte_that_is_changed_or_cut_is_a_refusal() -> None:
    """A changed cost is limited here, so that the bytes of the header are opened at a low one too."""
    raw = seal_backup(CONTENT, PASSPHRASE, CHEAP)
    highest = Cost(9, 1 << 20)
    for place in range(len(raw)):
        flipped = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        for wrong in (flipped, raw[:place], raw[:place] + raw[place + 1 :]):
            with pytest.raises(ExitWith) as caught:
                open_backup(wrong, PASSPHRASE, highest)
            assert caught.value.error in ("not_a_backup", "backup_unreadable", "backup_too_costly")
    with pytest.raises(ExitWith):
        open_backup(raw + b"\0", PASSPHRASE, highest)


@pytest.mark.parametrize("cost", [Cost(HIGHEST.passes + 1, 8192), Cost(1, HIGHEST.memory + 1)])
def test_a_file_that_demands_too_much_is_refused_before_the_key_is_derived(cost: Cost) -> None:
    salt = "00" * 16
    header = orjson.dumps({"salt": salt, "passes": cost.passes, "memory": cost.memory})
    with pytest.raises(ExitWith) as caught:
        open_backup(MAGIC + header + b"\n" + bytes(64), PASSPHRASE)
    assert caught.value.error == "backup_too_costly"


@pytest.mark.parametrize(
    "name",
    [
        "local_token",
        "outbox.db",
        "../keypair.json",
        "/etc/passwd",
        "hooks/../config.toml",
        "hooks/",
        "hooks/.hidden",
        "hooks/a/b",
        "hooks\\a",
        "keypair.json\n",
        "",
    ],
)
def test_a_backup_with_a_file_outside_of_the_list_is_refused(name: str) -> None:
    """Also when its maker had the passphrase."""
    assert not is_allowed(name)
    raw = seal_backup(Backup("team", "", {**CONTENT.files, name: b"x"}), PASSPHRASE, CHEAP)
    with pytest.raises(ExitWith) as caught:
        open_backup(raw, PASSPHRASE)
    assert caught.value.error == "backup_not_allowed"


@pytest.mark.parametrize("slug", ["../team", "", "a/b", ".x"])
def test_a_backup_of_a_mesh_without_a_proper_name_is_refused(slug: str) -> None:
    raw = seal_backup(Backup(slug, "", CONTENT.files), PASSPHRASE, CHEAP)
    with pytest.raises(ExitWith):
        open_backup(raw, PASSPHRASE)


def test_a_backup_without_keys_is_refused() -> None:
    raw = seal_backup(Backup("team", "", {"membership.json": b"{}"}), PASSPHRASE, CHEAP)
    with pytest.raises(ExitWith) as caught:
        open_backup(raw, PASSPHRASE)
    assert caught.value.error == "backup_not_allowed"


def test_the_cost_of_a_guess_is_in_the_file_and_high_by_default() -> None:
    """256 MiB and 3 passes at least; a passphrase has 12 characters at least."""
    assert (Cost().passes, Cost().memory) == (3, 256 << 20)
    with pytest.raises(ExitWith, match="fewer than 12"):
        check_passphrase("short")
    check_passphrase(PASSPHRASE)


def test_the_secrets_are_not_readable_in_the_file() -> None:
    raw = seal_backup(
        Backup("team", "", {**CONTENT.files, "config.toml": b"a secret text"}), PASSPHRASE, CHEAP
    )
    assert b"secret text" not in raw
    assert base64.b64encode(b"a secret text") not in raw
