"""Roles on hosts that were away for a time (docs/spec/protocol.md, Statements)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from claudemesh.daemon.identity.directory import Directory
from claudemesh.protocol.authority import judge_leave, judge_revocation, judge_role
from claudemesh.protocol.replies import PeerEntry
from claudemesh.protocol.statements import REVOCATION, ROLE, Statement, sign_statement
from claudemesh.protocol.wire import ROLES, Role
from tests.support.daemon import MESH_ID, Person, person

PEOPLE = [person(name) for name in ("olga", "otto", "adam", "mira")]
FIRST: list[Role] = ["owner", "owner", "admin", "member"]


@dataclass
class ModelBroker:
    """The members as an honest broker has them, with the newest statement of each kind."""

    roles: list[Role] = field(default_factory=lambda: list(FIRST))
    status: list[str] = field(default_factory=lambda: ["active"] * len(PEOPLE))
    statements: list[dict[str, Statement]] = field(default_factory=lambda: [{} for _ in PEOPLE])
    now: int = 1

    def allowed(self) -> list[tuple[str, int, int, Role]]:
        """The acts that this broker takes: a verb, the member that acts, the subject, and its new role."""
        found: list[tuple[str, int, int, Role]] = []
        active = [number for number, status in enumerate(self.status) if status == "active"]
        for of in active:
            others = sum(self.roles[number] == "owner" for number in active if number != of)
            old = self.roles[of]
            found += [("operator revokes", of, of, old)] if others else []
            found += [] if judge_leave(old, other_owners=others) else [("leave", of, of, old)]
            for by in active:
                right = self.roles[by]
                if by != of and judge_revocation(right, old, other_owners=others) is None:
                    found.append(("revoke", by, of, old))
                roles = [
                    role
                    for role in ROLES
                    if role != old and judge_role(right, old, role, other_owners=others) is None
                ]
                # Most acts are changes of a role.
                found += 6 * [("role", by, of, role) for role in roles]
        return found

    def act(self, verb: str, by: int, of: int, role: Role) -> None:
        """Carry an allowed act out."""
        self.now += 1
        if verb == "leave":
            self.status[of] = "left"
        elif verb == "role":
            self.roles[of] = role
            self._state(by, of, ROLE, role=role)
        else:
            self.status[of] = "revoked"
        if verb == "revoke":
            self._state(by, of, REVOCATION, pubkey=PEOPLE[of].identity.ed25519_pubkey)

    def _state(self, by: int, of: int, kind: str, **details: str) -> None:
        self.statements[of][kind] = sign_statement(
            PEOPLE[by].identity,
            kind,
            mesh_id=MESH_ID,
            subject=PEOPLE[of].member_id,
            at_ms=self.now,
            **details,
        )

    def entry(self, number: int) -> PeerEntry:
        """The entry of a member in the list."""
        stated = [one.to_dict() for one in self.statements[number].values()]
        return PEOPLE[number].listed(role=self.roles[number], status=self.status[number], statements=stated)

    def bring(self, host: Directory, order: list[int]) -> None:
        """Bring the list to a host, in some order."""
        host.gone([PEOPLE[number].member_id for number in order if self.status[number] == "left"])
        host.apply([self.entry(number) for number in order if self.status[number] != "left"])


@given(data=st.data())
def test_a_host_that_was_away_comes_to_the_roles_of_one_that_saw_each_step(data: st.DataObject) -> None:
    """The order of the list does not matter, nor do the later roles of the signers."""
    broker = ModelBroker()
    present, absent = Directory(Path("/nowhere"), MESH_ID), Directory(Path("/nowhere"), MESH_ID)
    order = data.draw(st.permutations(range(len(PEOPLE))), "order of the list")
    for host in (present, absent):
        broker.bring(host, order)
    for is_there in data.draw(st.lists(st.booleans(), min_size=2, max_size=10), "steps that both see"):
        if acts := broker.allowed():
            broker.act(*data.draw(st.sampled_from(acts), "act"))
        broker.bring(present, order)
        if is_there:
            broker.bring(absent, order)
    broker.bring(absent, order)
    for number, one in enumerate(PEOPLE):
        for host in (present, absent) if broker.status[number] == "active" else ():
            peer = host.by_id(one.member_id)
            assert peer is not None
            assert (peer.role, peer.status) == (broker.roles[number], "active")


def test_a_list_changes_a_stated_role_by_no_stranger_and_by_no_other_statement(tmp_path: Path) -> None:
    """Once a role was stated, the list alone cannot change it."""
    olga, _, adam, mira = PEOPLE
    directory = Directory(tmp_path / "peers.json", MESH_ID)
    directory.apply([olga.listed(role="owner"), adam.listed(role="member")])

    def listed(role: Role, by: Person, stated: Role, at_ms: int) -> str:
        statement = sign_statement(
            by.identity, ROLE, mesh_id=MESH_ID, subject=mira.member_id, at_ms=at_ms, role=stated
        )
        directory.apply([mira.listed(role=role, statements=[statement.to_dict()])])
        peer = directory.by_id(mira.member_id)
        assert peer is not None
        return peer.role

    assert listed("member", olga, "member", 1) == "member"
    assert listed("owner", person("stranger"), "owner", 2) == "member"
    assert listed("owner", adam, "admin", 3) == "member"
    assert listed("admin", adam, "owner", 4) == "member"
