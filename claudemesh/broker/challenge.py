"""Challenge keys: proofs that a member holds the private key of an x25519 key that it announces."""

from __future__ import annotations

import asyncio

from claudemesh.protocol.errors import ProtocolError
from claudemesh.protocol.possession import challenge_keypair, verify_possession


class ChallengeKeys:
    """The challenge keys of brokers that share a secret. They are made in a thread at the first request."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._made: tuple[bytes, str] | None = None
        self._making = asyncio.Lock()

    async def pubkey(self) -> str:
        """Return the public challenge key, in hexadecimal."""
        return (await self._keys())[1]

    async def check(self, ed25519_pubkey: str, x25519_pubkey: str, proof: bytes | None) -> None:
        """`ProtocolError` bad_signature unless the holder of the ed25519 key holds the x25519 key too."""
        challenge, _ = await self._keys()
        if proof is None or not verify_possession(challenge, ed25519_pubkey, x25519_pubkey, proof):
            raise ProtocolError(
                "bad_signature",
                "x25519_proof does not prove possession of the private key of x25519_pubkey. "
                "Join with a claudemesh of this broker's version. Brokers on one database need the same "
                "admin token.",
            )

    async def _keys(self) -> tuple[bytes, str]:
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(challenge_keypair, self._secret)
            return self._made
