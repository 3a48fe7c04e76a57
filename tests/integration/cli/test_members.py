"""Names, roles, revoking and leaving, with real processes (docs/spec/lifecycle.md, Leaving and revoking)."""

from __future__ import annotations

from pathlib import Path

from claudemesh.runtime.exits import PERMISSION
from tests.support.cli import run
from tests.support.processes import Daemon, Mesh, mesh, until


def names(daemon: Daemon) -> list[str]:
    """The names that a host lists."""
    return [item["name"] for item in run(daemon.home, "peers", "--json").json["items"]]


def done(home: Path, *arguments: str) -> None:
    """Run a command that has to succeed."""
    ran = run(home, *arguments)
    assert ran.code == 0, ran.err


def audit(made: Mesh) -> list[str]:
    """The kinds of the audit events of the mesh, the oldest first."""
    return [event["kind"] for event in reversed(made.admin("GET", "audit?mesh=demo")["items"])]


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
        done(alice.home, "send", key, "by key")
        done(alice.home, "peers", "accept", "bob")
        done(alice.home, "send", "bob", "by name")
        until(lambda: len(run(bob.home, "inbox", "--json").json["items"]) == 2, "both messages")
        done(bob.home, "down")


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
        refused = run(bob.home, "profile", "--name", "robert", "--json")
        assert (refused.code, refused.json["next"]) == (64, "claudemesh daemon rename robert")
        own = run(bob.home, "profile", "--json").json
        assert (own["status"], own["summary"], own["visible"]) == ("working", "builds", False)
        done(bob.home, "profile", "--visible")
        until(lambda: seen() == ("working", "builds", True), "the member as visible")
