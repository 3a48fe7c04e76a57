"""Names, roles, revoking and leaving, with real processes (docs/spec/lifecycle.md, Leaving and revoking)."""

from __future__ import annotations

from pathlib import Path

import pytest

from claudemesh.cli import member
from claudemesh.runtime.clock import iso_ms
from claudemesh.runtime.exits import PERMISSION, TEMPORARY, UNAVAILABLE
from claudemesh.runtime.files import FileLock
from tests.support.audit import broker_rows
from tests.support.cli import begin, run
from tests.support.processes import Daemon, mesh, until


def names(daemon: Daemon) -> list[str]:
    """The names that a host lists."""
    return [item["name"] for item in run(daemon.home, "peers", "--json").json["items"]]


def done(home: Path, *arguments: str) -> None:
    """Run a command that has to succeed."""
    ran = run(home, *arguments)
    assert ran.code == 0, ran.err


def test_a_renamed_member_is_known_by_its_new_name_on_every_host() -> None:
    """The old name is free, and leads to no member; a name in use is refused."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        taken = run(bob.home, "daemon", "rename", "Alice")
        assert (taken.code, "Another member has this name" in taken.err) == (64, True)
        done(bob.home, "daemon", "rename", "robert")
        until(lambda: names(alice) == ["alice", "robert"], "the new name at the other host")
        assert run(bob.home, "whoami", "--json").json["name"] == "robert"
        old = run(alice.home, "send", "bob", "hello")
        assert (old.code, "robert" in old.err) == (64, True)
        done(alice.home, "send", "robert", "hello")
        until(lambda: bob.inbox(), "the message")
        bob.stop()
        bob.start()
        bob.ready()
        assert run(bob.home, "whoami", "--json").json["name"] == "robert"


def test_up_with_a_name_renames_a_member_that_exists() -> None:
    """The daemon asks when its link is up."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        bob.stop()
        done(bob.home, "up", "-d", "--name", "build")
        until(lambda: names(alice) == ["alice", "build"], "the new name at the other host")
        done(bob.home, "down")


def test_an_owner_revokes_a_member_from_its_own_host() -> None:
    """Without the broker's token; the daemon ends with 77, and again with 77 at each later start."""
    with mesh("alice", "bob", "carol") as made:
        alice, bob, carol = (made.daemons[name] for name in ("alice", "bob", "carol"))
        refused = run(bob.home, "member", "revoke", "carol", "--yes")
        assert (refused.code, "role member" in refused.err) == (PERMISSION, True)
        last = run(alice.home, "member", "revoke", "alice", "--yes")
        assert "--force" in last.err
        unasked = run(alice.home, "member", "revoke", "bob")
        assert (unasked.code, "--yes" in unasked.err) == (64, True)
        assert f"bob (member, key {run(bob.home, 'whoami', '--json').json['member_pubkey']})" in unasked.err
        mistyped = run(alice.home, "member", "revoke", "bobb", "--json").json
        assert (mistyped["error"], mistyped["near"]) == ("destination_not_found", ["bob"])
        done(alice.home, "member", "revoke", "bob", "--yes")
        assert bob.ended() == PERMISSION
        again = run(bob.home, "up")
        key = run(alice.home, "whoami", "--json").json["member_pubkey"]
        assert (again.code, key in again.err) == (PERMISSION, True)
        assert names(alice) == ["alice", "carol"]
        until(lambda: names(carol) == ["alice", "carol"], "the revocation at a third host")
        [gone] = [
            item
            for item in run(carol.home, "member", "list", "--json").json["items"]
            if item["name"] == "bob"
        ]
        assert (gone["status"], gone["revoked_by"]) == ("revoked", key)
        sent = run(carol.home, "send", "bob", "hello")
        assert (sent.code, "was revoked" in sent.err) == (64, True)
        done(bob.home, "leave", "--yes")
        assert not (bob.home / "daemon" / "demo").exists()


def test_a_question_about_a_member_is_answered_for_that_member(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name may be another's by the answer."""
    with mesh("alice", "bob", "carol") as made:
        alice, bob, carol = made.daemons.values()
        until(lambda: names(alice) == ["alice", "bob", "carol"], "alice knows all")
        before = run(bob.home, "whoami", "--json").json["member_id"]

        def answered_late(text: str, *, yes: bool) -> None:
            assert "bob (member, key " in text
            done(bob.home, "daemon", "rename", "robert")
            done(carol.home, "daemon", "rename", "bob")
            until(lambda: names(alice) == ["alice", "bob", "robert"], "alice knows the new names")

        monkeypatch.setattr(member, "confirm", answered_late)
        monkeypatch.setenv("CLAUDEMESH_HOME", str(alice.home))
        member.revoke.main(["bob"], standalone_mode=False)
        assert bob.ended() == PERMISSION
        [gone] = [
            one
            for one in run(alice.home, "member", "list", "--json").json["items"]
            if one["status"] == "revoked"
        ]
        assert (gone["member_id"], carol.running) == (before, True)


def test_a_member_that_was_away_is_told_which_member_has_revoked_it() -> None:
    """The refusal shows the statement, which this host verifies by the keys and roles that it has pinned."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        until(lambda: names(bob) == ["alice", "bob"], "bob knows alice")
        key = run(alice.home, "whoami", "--json").json["member_pubkey"]
        bob.stop()
        done(alice.home, "member", "revoke", "bob", "--yes")
        bob.start()
        assert bob.ended() == PERMISSION
        again = run(bob.home, "up")
        assert (again.code, f"alice (owner, key {key})" in again.err) == (PERMISSION, True)


def test_an_admin_acts_up_to_its_own_role() -> None:
    """It revokes members and no owner, and gives no role above its own."""
    with mesh("alice", "bob", "carol") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        done(alice.home, "member", "role", "bob", "admin")
        until(
            lambda: run(bob.home, "whoami", "--json").json["role"] == "admin",
            "the role at the host of the member",
        )
        assert run(bob.home, "member", "revoke", "alice", "--yes").code == PERMISSION
        assert run(bob.home, "member", "role", "carol", "owner").code == PERMISSION
        done(bob.home, "member", "revoke", "carol", "--yes")
        assert made.daemons["carol"].ended() == PERMISSION
        done(alice.home, "member", "role", "bob", "owner")
        done(alice.home, "member", "role", "alice", "member")
        last = run(bob.home, "member", "role", "bob", "member")
        assert "--force" in last.err


def test_a_host_that_was_away_lists_a_role_whose_giver_was_revoked_meanwhile() -> None:
    """It comes to the same role as a host that saw each step."""
    with mesh("alice", "bob", "carol", "dave") as made:
        alice, bob, carol, dave = made.daemons.values()

        def role_at(host: Daemon) -> str:
            items = run(host.home, "member", "list", "--json").json["items"]
            return str(next(item["role"] for item in items if item["name"] == "carol"))

        done(alice.home, "member", "role", "bob", "admin")
        done(alice.home, "member", "role", "carol", "admin")
        until(lambda: role_at(dave) == "admin", "the first role")
        done(alice.home, "member", "role", "carol", "member")
        until(lambda: role_at(dave) == role_at(carol) == "member", "the second role")
        dave.stop()
        until(lambda: run(bob.home, "whoami", "--json").json["role"] == "admin", "the role of bob")
        done(bob.home, "member", "role", "carol", "admin")
        until(lambda: role_at(carol) == "admin", "the role by bob")
        done(alice.home, "member", "revoke", "bob", "--yes")
        until(lambda: names(carol) == ["alice", "carol", "dave"], "the revocation")
        # The list has carol behind bob now.
        done(carol.home, "profile", "--summary", "later")
        dave.start()
        dave.ready()
        until(lambda: names(dave) == ["alice", "carol", "dave"], "the revocation, later")
        until(lambda: role_at(dave) == "admin", "the role that bob has given")
        assert role_at(alice) == role_at(carol) == "admin"


def test_leaving_takes_the_host_out_of_the_mesh_and_frees_its_name() -> None:
    """Also while its daemon is stopped; another member under the name is refused until it is accepted."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        done(alice.home, "send", "bob", "hello")
        until(lambda: bob.inbox(), "the message")
        last = run(alice.home, "leave", "--yes")
        assert (last.code, "--force" in last.err, alice.running) == (64, True, True)
        bob.stop()
        done(bob.home, "leave", "--yes")
        assert not (bob.home / "daemon" / "demo").exists()
        until(lambda: names(alice) == ["alice"], "the departure at the other host")
        link = run(alice.home, "invite", "create", "--json").json["invite"]
        done(bob.home, "join", link, "--name", "bob")
        done(bob.home, "up", "-d")
        until(lambda: names(alice) == ["alice", "bob"], "the new member")
        rebound = run(alice.home, "send", "bob", "hello")
        key = run(bob.home, "whoami", "--json").json["member_pubkey"]
        assert (rebound.code, key in rebound.err, "peers accept bob" in rebound.err) == (64, True, True)
        compared = run(alice.home, "verify", "bob", "--json")
        assert (compared.code, compared.json["error"]) == (64, "name_rebound")
        done(alice.home, "send", key, "by key")
        done(alice.home, "peers", "accept", "bob")
        done(alice.home, "send", "bob", "by name")
        until(lambda: len(run(bob.home, "inbox", "--json").json["items"]) == 2, "both messages")
        done(bob.home, "down")


def test_a_leave_that_the_broker_does_not_answer_leaves_the_host_as_it_was() -> None:
    """The daemon that it starts for that stops again, also when the command is killed."""
    with mesh("alice", "bob") as made:
        bob = made.daemons["bob"]
        bob.stop()
        made.broker.kill()
        refused = run(bob.home, "leave", "--yes")
        assert (refused.code, "broker" in refused.err) == (TEMPORARY, True)
        assert run(bob.home, "status").code == UNAVAILABLE
        assert (bob.root / "membership.json").exists()
        with begin(bob.home, "leave", "--yes") as leaving:
            until(lambda: leaving.poll() is not None or run(bob.home, "whoami").code == 0, "the daemon")
        until(lambda: not FileLock(bob.root / "lock").is_held(), "the end of the daemon")


def test_a_signed_invite_lets_another_host_take_a_name_over() -> None:
    """Other hosts follow the owner's statement, also one that was away, and say so in an event."""
    with mesh("alice", "bob", "carol") as made:
        alice, bob, carol = (made.daemons[name] for name in ("alice", "bob", "carol"))
        early = run(alice.home, "invite", "create", "--name", "bob", "--replace")
        assert (early.code, "revoke" in early.err) == (64, True)
        done(alice.home, "member", "revoke", "bob", "--yes")
        assert bob.ended() == PERMISSION
        carol.stop()
        done(bob.home, "leave", "--yes")
        made_invite = run(alice.home, "invite", "create", "--name", "bob", "--replace", "--json").json
        other = run(bob.home, "join", made_invite["invite"], "--name", "mallory")
        assert (other.code, "another name" in other.err) == (PERMISSION, True)
        done(bob.home, "join", made_invite["invite"])
        done(bob.home, "up", "-d")
        until(lambda: names(alice) == ["alice", "bob", "carol"], "the new member")
        done(alice.home, "send", "bob", "by name")
        carol.start()
        carol.ready()
        until(lambda: names(carol) == ["alice", "bob", "carol"], "the new member at a host that was away")
        done(carol.home, "send", "bob", "by name")
        until(lambda: len(run(bob.home, "inbox", "--json").json["items"]) == 2, "both messages")
        done(bob.home, "down")


def test_a_reset_keeps_the_member_and_deletes_its_state() -> None:
    """Keys, configuration and name stay; messages and pins go."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        done(alice.home, "send", "bob", "hello")
        until(lambda: bob.inbox(), "the message")
        before = run(bob.home, "whoami", "--json").json
        done(bob.home, "daemon", "reset", "--yes")
        done(bob.home, "up", "-d")
        assert run(bob.home, "whoami", "--json").json["member_pubkey"] == before["member_pubkey"]
        assert run(bob.home, "inbox", "--json").json["items"] == []
        done(alice.home, "send", "bob", "again")
        until(lambda: run(bob.home, "inbox", "--json").json["items"], "the next message")
        done(bob.home, "down")


def test_leaving_and_a_reset_say_what_is_not_delivered_and_a_reset_leaves_no_file_on_its_way() -> None:
    """Also in a folder whose name has a meaning in addresses: sends, files and messages are counted."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]
        done(alice.home, "send", "bob", "hello")
        until(lambda: bob.inbox(), "the message")
        (made.root / "a.tar").write_bytes(b"content")
        made.broker.kill()
        done(bob.home, "send", "alice", "later")
        done(bob.home, "file", "send", str(made.root / "a.tar"), "alice")
        bob.stop()
        home = bob.home.rename(bob.home.with_name("b#1%41"))
        for command in (("leave",), ("daemon", "reset")):
            asked = run(home, *command)
            assert asked.code == 64
            told = ("1 received messages", "1 accepted sends are not", "1 files or long texts are not shared")
            assert [text for text in told if text not in asked.err] == []
        spool = home / "daemon" / "demo" / "spool"
        assert len(list(spool.iterdir())) == 1
        done(home, "daemon", "reset", "--yes")
        assert not spool.exists()
        done(home, "up", "-d")
        assert run(home, "file", "list", "--sent", "--json").json["items"] == []
        done(home, "down")


def test_the_last_seen_time_is_true_after_restarts_of_daemon_and_broker() -> None:
    """It is that of the end of a presence, not of its beginning."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]

        def seen(command: str) -> tuple[bool, str]:
            items = run(alice.home, *command.split(), "--json").json["items"]
            return next((item["online"], item["last_seen_at"]) for item in items if item["name"] == "bob")

        until(lambda: seen("peers")[0], "the member is online")
        until(lambda: bob.request("GET", "/v1/health")[1]["connected"], "the link")
        later = seen("member list")[1]
        assert later <= seen("peers")[1]
        bob.stop()
        until(lambda: not seen("peers")[0], "the member has gone")
        gone = seen("peers")
        assert gone[1] >= later
        alice.stop()
        made.broker.stop()
        alice.start()
        alice.ready(connected=False)
        assert seen("peers") == seen("member list") == gone


def test_the_last_seen_time_of_a_member_that_went_while_this_host_was_away_is_true() -> None:
    """It came and went unseen; the list of members tells of no such change."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]

        def seen(command: str) -> str:
            items = run(alice.home, *command.split(), "--json").json["items"]
            return next(item["last_seen_at"] for item in items if item["name"] == "bob")

        bob.stop()
        until(
            lambda: not run(alice.home, "peers", "--json").json["items"][1]["online"], "the member has gone"
        )
        before = seen("peers")
        alice.stop()
        bob.start()
        bob.ready()
        bob.stop()
        [(at_ms,)] = broker_rows(made, "SELECT last_seen_at FROM member WHERE name = 'bob'")
        gone = iso_ms(at_ms)
        assert gone > before
        alice.start()
        alice.ready()
        until(lambda: alice.request("GET", "/v1/health")[1]["connected"], "the link")
        assert seen("peers") == seen("member list") == gone
        alice.stop()
        made.broker.stop()
        alice.start()
        alice.ready(connected=False)
        assert seen("peers") == gone


def test_a_profile_is_shown_to_others_and_an_invisible_member_is_not() -> None:
    """A change arrives at the other host; invisible means offline in every list."""
    with mesh("alice", "bob") as made:
        alice, bob = made.daemons["alice"], made.daemons["bob"]

        def seen() -> tuple[object, ...]:
            [item] = [one for one in run(alice.home, "peers", "--json").json["items"] if one["name"] == "bob"]
            return item["status"], item["summary"], item["online"]

        done(bob.home, "profile", "--status", "working", "--summary", "builds")
        until(lambda: seen() == ("working", "builds", True), "the profile at the other host")
        done(bob.home, "profile", "--invisible")
        until(lambda: seen() == (None, None, False), "the member as invisible")
        pinged = run(alice.home, "ping", "bob", "--json")
        assert (pinged.code, pinged.json["online"], pinged.json["last_seen_at"]) == (UNAVAILABLE, False, None)
        waited = run(alice.home, "wait", "--for", "peer=bob", "--timeout", "1s")
        assert waited.code != 0
        refused = run(bob.home, "profile", "--name", "robert", "--json")
        assert (refused.code, refused.json["next"]) == (64, "claudemesh daemon rename robert")
        own = run(bob.home, "profile", "--json").json
        assert (own["status"], own["summary"], own["visible"]) == ("working", "builds", False)
        done(bob.home, "profile", "--visible")
        until(lambda: seen() == ("working", "builds", True), "the member as visible")
