"""Trust in the senders of messages: what a message of theirs may do to a session of this host."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from claudemesh.daemon.identity.directory import Directory
from claudemesh.daemon.settings import Trust


def trust_of(name: str, *, is_ephemeral: bool, given: Mapping[str, Trust]) -> Trust:
    """Return the trust in a member. `given` are the words of `[sessions.trust]` by name in lower case."""
    return given.get(name.lower(), "inbox" if is_ephemeral else "wake")


class SenderTrust:
    """Trust in each sender, by the settings in force and the directory."""

    def __init__(self, directory: Directory, given: Callable[[], Mapping[str, Trust]]) -> None:
        self._directory = directory
        self._given = given

    def of(self, member_id: str) -> Trust:
        """Return the trust in a member. One that is not known wakes nothing."""
        peer = self._directory.by_id(member_id)
        if peer is None:
            return "inbox"
        return trust_of(peer.name, is_ephemeral=peer.ephemeral, given=self._given())

    def muted(self) -> Sequence[str]:
        """Return the ids of the members whose messages no session is given."""
        names = [name for name, word in self._given().items() if word == "mute"]
        return [peer.member_id for name in names if (peer := self._directory.by_name(name))]
