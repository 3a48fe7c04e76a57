"""Index of the members: ephemeral members that have left do not grow without end."""

from __future__ import annotations

from pathlib import Path

from claudemesh.daemon.identity.members import MAX_DEPARTED
from tests.support.daemon import directory_of, person


def test_of_the_ephemeral_members_that_have_left_the_last_are_kept(tmp_path: Path) -> None:
    """Those that are here stay, and so do persistent ones. Forgotten ones are not saved."""
    jobs = [person(f"ci-{number}") for number in range(MAX_DEPARTED + 5)]
    host, here = person("host"), person("ci-here")
    directory = directory_of(tmp_path, host)
    directory.apply([one.listed(ephemeral=True) for one in (*jobs, here)])
    directory.gone([host.member_id, *(job.member_id for job in jobs)])
    kept = [job for job in jobs if directory.by_id(job.member_id) is not None]
    assert kept == jobs[-MAX_DEPARTED:]
    assert directory.by_id(host.member_id) is not None
    assert directory.by_name("ci-here") is not None
    assert directory.by_name("ci-0") is None
    assert directory.by_key(jobs[0].identity.ed25519_pubkey) is None
    directory.save()
    again = directory_of(tmp_path)
    again.load()
    assert [job for job in jobs if again.by_id(job.member_id) is not None] == kept


def test_a_forgotten_member_is_taken_over_again(tmp_path: Path) -> None:
    """For a message of it that arrives later. It stays a member that has left."""
    jobs = [person(f"ci-{number}") for number in range(MAX_DEPARTED + 1)]
    directory = directory_of(tmp_path)
    directory.apply([one.listed(ephemeral=True) for one in jobs])
    directory.gone([job.member_id for job in jobs])
    assert directory.by_id(jobs[0].member_id) is None
    assert directory.apply_one(jobs[0].listed(ephemeral=True, status="left"))
    known = directory.by_id(jobs[0].member_id)
    assert known is not None
    assert known.status == "left"


def test_a_member_that_is_first_seen_when_it_has_left_takes_no_name(tmp_path: Path) -> None:
    """The name is free for the member that has it now."""
    gone, now = person("worker"), person("worker")
    directory = directory_of(tmp_path)
    directory.apply_one(gone.listed(status="left"))
    assert directory.apply_one(now.listed())
    found = directory.by_name("worker")
    assert found is not None
    assert found.member_id == now.member_id
    assert directory.by_key(gone.identity.ed25519_pubkey) is not None
