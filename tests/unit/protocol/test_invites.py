from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol import invite_codes
from claudemesh.protocol.errors import InvalidField, ProtocolError
from claudemesh.protocol.invites import (
    LINK_PREFIX,
    Invite,
    code_of_link,
    find_link,
    parse_link,
    sign_invite,
)
from claudemesh.protocol.statements import Statement, sign_statement
from tests.support.envelopes import ALICE, BOB, MESH_ID, ULID_TEXT
from tests.support.values import replace

FIELDS: dict[str, Any] = {
    "broker_url": "wss://mesh.example.org:7900",
    "mesh_id": MESH_ID,
    "slug": "prod",
    "invite_id": ULID_TEXT,
    "role": "member",
    "expires_at_ms": 1_800_000_000_000,
    "uses": 3,
}
INVITE = sign_invite(ALICE, **FIELDS)


def link_of(value: object) -> str:
    return LINK_PREFIX + base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def as_json(invite: Invite = INVITE) -> dict[str, Any]:
    payload = invite.to_link().removeprefix(LINK_PREFIX)
    value: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return value


def refused(text: str) -> str:
    with pytest.raises(ProtocolError) as caught:
        parse_link(text)
    assert caught.value.code == "invalid_invite"
    return caught.value.message


def test_link_reads_back_and_verifies() -> None:
    """claudemesh://join/<base64url JSON>."""
    link = INVITE.to_link()
    assert link.startswith("claudemesh://join/")
    assert "=" not in link
    assert parse_link(link) == INVITE
    assert parse_link(f"  {link}\n") == INVITE
    assert parse_link(link).verify()
    assert parse_link(link).verify()


def test_link_holds_no_secret() -> None:
    """The link has the signed fields and the signature."""
    assert set(as_json()) == {*FIELDS, "inviter_pubkey", "signature"}
    assert as_json()["inviter_pubkey"] == ALICE.ed25519_pubkey


OTHER: dict[str, Any] = {
    "broker_url": "wss://evil.example.org:7900",
    "mesh_id": MESH_ID[:-1] + "2",
    "slug": "prod2",
    "invite_id": "0" * 26,
    "role": "owner",
    "expires_at_ms": 1_900_000_000_000,
    "uses": 4,
    "inviter_pubkey": BOB.ed25519_pubkey,
    "signature": b"\0" * 64,
}


@pytest.mark.parametrize("field", sorted(OTHER))
def test_signature_covers_all_of_it(field: str) -> None:
    """The broker cannot forge an invite, and neither can a joiner change one."""
    assert set(OTHER) == set(as_json())
    assert not replace(INVITE, **{field: OTHER[field]}).verify()


BROKEN: dict[str, list[object]] = {
    "broker_url": [
        None,
        5,
        "",
        "http://h:1",
        "ws://",
        "ws://:80",
        "ws://h:0",
        "ws://h:99999",
        "ws://h:x",
        "ws://u:p@h",
        "ws://h/?q=1",
        "ws://h/#f",
        "ws://h h",
        "ws://[::1",
        "ws://" + "h" * 300,
        "ws://h\n",
    ],
    "mesh_id": [None, 5, "", MESH_ID.upper()],
    "slug": [None, 5, "", "A", "a" * 64],
    "invite_id": [None, 5, "", ULID_TEXT.lower()],
    "role": [None, 5, "", "root", ["member"]],
    "expires_at_ms": [None, "5", True, 0, -1, 1.5, 2**48],
    "uses": [None, "5", True, 0, -1, 1.5, 1_000_001],
    "inviter_pubkey": [None, 5, "", "A" * 64],
    "signature": [None, 5, "", "AAAA", "A" * 88],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field in BROKEN for value in BROKEN[field]])
def test_wrong_field_is_refused(field: str, value: object) -> None:
    """Everything in a link is checked before anything is dialled."""
    assert field.split("_")[0] in refused(link_of({**as_json(), field: value}))


@pytest.mark.parametrize("field", sorted(BROKEN))
def test_missing_field_is_refused(field: str) -> None:
    """A link is whole."""
    refused(link_of({name: value for name, value in as_json().items() if name != field}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "claudemesh://join/",
        "claudemesh://join/!!!",
        "https://example.org",
        INVITE.to_link().removeprefix(LINK_PREFIX),
        INVITE.to_link()[:-7],
        INVITE.to_link() + "?x",
        INVITE.to_link() + "\ud800",
        "claudemesh://join/" + "A" * 5000,
        "claudemesh://join/A",
        link_of([]),
        link_of("x"),
        link_of({}),
    ],
)
def test_other_texts_than_links_are_refused(text: str) -> None:
    """A part of a link, or another text."""
    assert "Ask the inviter to send it again." in refused(text)


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_any_text_is_an_invite_or_refused(text: str) -> None:
    """No other exception."""
    refused(LINK_PREFIX + text)


@pytest.mark.parametrize("role", ["owner", "admin", "member"])
@pytest.mark.parametrize("url", ["ws://127.0.0.1:7900", "ws://[::1]:7900", "wss://mesh.example.org/path"])
def test_every_role_and_address_can_be_invited_to(role: str, url: str) -> None:
    """The broker decides whether the inviter may invite."""
    invite = sign_invite(ALICE, **{**FIELDS, "role": role, "broker_url": url})
    assert parse_link(invite.to_link()).verify()


@pytest.mark.parametrize(("field", "value"), [("uses", 0), ("role", "root"), ("broker_url", "http://h")])
def test_nothing_wrong_is_ever_signed(field: str, value: object) -> None:
    """Every invite of sign_invite is accepted by parse_link."""
    with pytest.raises(InvalidField):
        sign_invite(ALICE, **{**FIELDS, field: value})


INTRODUCED = sign_invite(ALICE, **FIELDS, inviter=("alice", MESH_ID))


def test_an_introduction_is_signed_for_its_invite_alone() -> None:
    """A name, a member id, or the introduction of another invite in its place: not genuine."""
    assert parse_link(INTRODUCED.to_link()) == INTRODUCED
    assert INTRODUCED.verify()
    introduction = INTRODUCED.introduction
    assert introduction is not None
    other = sign_invite(
        ALICE, **{**FIELDS, "invite_id": "01HQXW5Z3Y8C6T0V9R4N2M7K2P"}, inviter=("alice", MESH_ID)
    )
    by_bob = sign_invite(BOB, **FIELDS, inviter=("alice", MESH_ID)).introduction
    for forged in (
        replace(introduction, name="mallory"),
        replace(introduction, member_id=MESH_ID[:-1] + "9"),
        other.introduction,
        by_bob,
    ):
        assert not replace(INTRODUCED, introduction=forged).verify()


def test_versions_without_introductions_can_use_the_link() -> None:
    """They read the fields and the signature that they know."""
    value = as_json(INTRODUCED)
    del value["introduction"]
    assert value == as_json(INVITE)
    assert parse_link(link_of(value)).verify()


@pytest.mark.parametrize(
    "introduction", [5, {}, {"name": "alice"}, {"name": "", "member_id": MESH_ID, "signature": "A" * 88}]
)
def test_a_damaged_introduction_is_refused(introduction: object) -> None:
    """It does not count as a missing one."""
    refused(link_of(as_json() | {"introduction": introduction}))


LINK = INVITE.to_link()
PASTED = {
    "line end of Windows": f"{LINK}\r\n",
    "wrapped at 72 columns": "\n".join(LINK[at : at + 72] for at in range(0, len(LINK), 72)),
    "wrapped and quoted": "\r\n".join(f"> {LINK[at : at + 60]}" for at in range(0, len(LINK), 60)),
    "wrapped in its first word": f"{LINK[:9]}\n{LINK[9:]}",
    "soft line ends of a mail": "=\r\n".join(LINK[at : at + 75] for at in range(0, len(LINK), 75)),
    "angle brackets": f"<{LINK}>",
    "full stop": f"{LINK}.",
    "quotation marks": f"\u201c{LINK}\u201d",
    "byte order mark": f"\ufeff{LINK}",
    "zero-width space": f"{LINK[:40]}\u200b{LINK[40:]}",
    "no-break space": f"\u00a0{LINK}\u00a0",
    "a sentence around it": f"Join us by {LINK} before it is used up.",
    "a dash behind it": f"{LINK} - until tomorrow",
    "Markdown": f"[the invite]({LINK})",
    "capital letter": LINK.replace("claudemesh", "Claudemesh"),
}


@pytest.mark.parametrize("pasted", PASTED.values(), ids=PASTED.keys())
def test_a_pasted_link_is_found_without_what_was_put_around_it(pasted: str) -> None:
    """Additions of mail programs, chats and terminals are left out, and the link is the original one."""
    assert find_link(pasted) == LINK


@given(st.text(), st.text(alphabet=" \r\n\t\ufeff>"), st.text())
def test_every_link_survives_words_around_it(before: str, between: str, after: str) -> None:
    """With any words around it, and wrapped at any place."""
    assert find_link(f"{before} {LINK[:50]}{between}{LINK[50:]} {after}") == LINK


@given(st.text(), st.sampled_from(["", " \r\n", "\ufeff> "]), st.sampled_from(["", ".", " Copy it", "Z"]))
def test_the_code_of_a_qr_code_is_read_as_its_link(before: str, between: str, after: str) -> None:
    """Also typed in lower case, wrapped, and with words around it."""
    code = code_of_link(LINK)
    assert re.fullmatch("[A-Z0-9:/]+", code)
    assert find_link(code.lower()) == LINK
    assert find_link(f"{before} {code[:50]}{between}{code[50:]}{after}") == LINK


def test_a_code_that_is_cut_or_changed_is_refused() -> None:
    """It is no shorter link, and the changed link has a wrong signature."""
    code = code_of_link(LINK)
    for end in (len(LINK_PREFIX) + 1, 60, len(code) - 2):
        refused(find_link(code[:end]))
    for bomb in (b"a" * 10_000_000, b"{}"):
        refused(find_link(LINK_PREFIX + invite_codes.encode(bomb)))


def test_the_code_of_an_invite_does_not_change() -> None:
    """A code that was printed is read by every later version."""
    payload = b'{"broker_url":"wss://mesh.example.org:7900","slug":"prod"}'
    assert invite_codes.decode("ZEPEZWUDPCUAK2U5KAUAA", 4096) == payload


@given(st.text() | st.text(alphabet='[{"eyJb3').map(LINK_PREFIX.__add__))
def test_a_text_without_a_whole_link_is_still_refused(text: str) -> None:
    """Damaged links are for parse_link to name."""
    refused(find_link(text))


def test_a_link_that_was_cut_is_refused() -> None:
    """No shorter link is made of it."""
    refused(find_link(LINK[:-5]))
    refused(find_link(LINK_PREFIX + base64.urlsafe_b64encode(b"[" * 3000).decode().rstrip("=")))


@pytest.mark.parametrize(
    "link", [LINK_PREFIX + "abc", LINK_PREFIX + "a", LINK[:-5], LINK[:60], LINK[:40] + "zz" + LINK[42:]]
)
def test_the_error_for_a_damaged_link_is_about_the_link(link: str) -> None:
    """It says that the link is to be copied whole, and shows no reason of a decoder."""
    message = refused(link)
    assert message == (
        "The invite is not usable. The link is cut or changed. Copy it whole, to its last character. "
        "Ask the inviter to send it again."
    )


def test_an_invite_for_ephemeral_members_is_signed_as_such() -> None:
    """The field cannot be added to a link nor taken from it. Links without it are as they were."""
    invite = sign_invite(ALICE, **FIELDS, ephemeral_only=True)
    assert parse_link(invite.to_link()) == invite
    assert invite.verify()
    assert "ephemeral_only" not in as_json()
    stripped = {name: value for name, value in as_json(invite).items() if name != "ephemeral_only"}
    added = as_json() | {"ephemeral_only": True}
    assert not any(parse_link(link_of(value)).verify() for value in (stripped, added))


@pytest.mark.parametrize("value", [False, None, 1, "true", []])
def test_ephemeral_only_is_true_or_absent(value: object) -> None:
    """Any other value is refused with the name of the field."""
    assert "ephemeral_only" in refused(link_of(as_json() | {"ephemeral_only": value}))


def test_an_invite_for_a_name_takes_it_over_by_its_inviters_statement() -> None:
    """The statement is the inviter's, and for this invite and name; in any other invite it is refused."""

    def statement(by: Any = ALICE, **changes: str) -> Statement:
        details = {"name": "bob", "invite_id": ULID_TEXT} | changes
        return sign_statement(by, "replacement", mesh_id=MESH_ID, subject=MESH_ID, at_ms=1, **details)

    named = sign_invite(ALICE, **FIELDS, name="bob")
    invite = sign_invite(ALICE, **FIELDS, name="bob", replacement=statement())
    for good in (named, invite):
        assert good.verify()
        assert parse_link(good.to_link()) == good
    wrong = (statement(BOB), statement(name="carol"), statement(invite_id="0" * 26))
    for one in wrong:
        assert not sign_invite(ALICE, **FIELDS, name="bob", replacement=one).verify()
    assert not sign_invite(ALICE, **FIELDS, replacement=statement()).verify()
    assert not replace(invite, name="mallory").verify()
    assert not replace(invite, replacement=None).verify()
    assert not replace(invite, name=None).verify()
