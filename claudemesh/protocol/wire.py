"""Constants of the wire: names, versions, sizes, and the words that frames and stores share.

Each of them stands here and nowhere else (docs/spec/protocol.md, WebSocket and Features). The module imports
nothing of the package, so that every other one can import it.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

# The WebSocket

SUBPROTOCOL: Final = "claudemesh.v1"
WEBSOCKET_PATH: Final = "/v1/ws"
# Versions of the protocol that a challenge offers.
PROTOCOL_VERSIONS: Final = (1,)
ENVELOPE_VERSION: Final = 1
# Seconds between the pings of one side. A side that misses the answer to one for as long again is gone.
PING_INTERVAL_S: Final = 20.0

# Sizes, in bytes

# Upper bound of a sealed body within a frame, unless the broker negotiates another one.
DEFAULT_INLINE_BYTES: Final = 262_144
DEFAULT_BLOB_BYTES: Final = 256 << 20
# A broker that offers less than this is not usable.
MIN_PAYLOAD_BYTES: Final = 1024
# The largest inline body that a daemon reads.
MAX_INLINE_BYTES: Final = 4 << 20
# Everything of a frame except the base64 text of its body.
FRAME_OVERHEAD_BYTES: Final = 16_384
# A frame before `hello_ack`.
HANDSHAKE_FRAME_BYTES: Final = 8192
CHALLENGE_NONCE_BYTES: Final = 32
# A broker reads frames up to this size even when `inline_bytes` is smaller. A daemon to which it offered more
# earlier gets `payload_too_large` for one row instead of a closed connection.
_LEAST_BROKER_FRAME_BYTES: Final = 2 << 20


def frame_bytes(inline_bytes: int) -> int:
    """Return the size of the largest frame whose body has at most `inline_bytes` bytes."""
    return inline_bytes * 4 // 3 + FRAME_OVERHEAD_BYTES


def broker_frame_bytes(inline_bytes: int) -> int:
    """Return the largest frame that a broker reads; a larger one closes the connection with 1009."""
    return max(_LEAST_BROKER_FRAME_BYTES, frame_bytes(inline_bytes))


# The largest frame that a daemon reads. It cannot follow the negotiation: the limit is set before it.
DAEMON_FRAME_BYTES: Final = frame_bytes(MAX_INLINE_BYTES)

# Frames with several sends, results or deliveries (docs/spec/protocol.md, Frames with several items).

# The most items of one frame.
BATCH_ITEMS: Final = 32
# The items of a frame have at most so many bytes together; a larger item has a frame of its own.
BATCH_BYTES: Final = 64 << 10

# The longest life of an ephemeral member that a join may ask for: 30 days.
MAX_TTL_MS: Final = 30 * 86_400_000

# Words. Each type is followed by its values, in the order in which messages list them.

Side: TypeAlias = Literal["daemon", "broker"]

Role: TypeAlias = Literal["owner", "admin", "member"]
ROLES: Final[tuple[Role, ...]] = ("owner", "admin", "member")
# A member may give or confirm roles up to its own.
ROLE_RANK: Final[dict[Role, int]] = {"member": 0, "admin": 1, "owner": 2}

MemberStatus: TypeAlias = Literal["active", "revoked", "left"]
MEMBER_STATUSES: Final[tuple[MemberStatus, ...]] = ("active", "revoked", "left")

DestinationKind: TypeAlias = Literal["dm", "topic", "queue"]
DESTINATION_KINDS: Final[tuple[DestinationKind, ...]] = ("dm", "topic", "queue")

TopicMode: TypeAlias = Literal["topic", "queue"]
TOPIC_MODES: Final[tuple[TopicMode, ...]] = ("topic", "queue")

Priority: TypeAlias = Literal["now", "next", "low"]
# A lower rank is delivered first.
PRIORITY_RANK: Final[dict[Priority, int]] = {"now": 0, "next": 1, "low": 2}

ConnectionPolicy: TypeAlias = Literal["prefer_newest", "prefer_oldest", "allow_concurrent"]
CONNECTION_POLICIES: Final[tuple[ConnectionPolicy, ...]] = (
    "prefer_newest",
    "prefer_oldest",
    "allow_concurrent",
)
DEFAULT_CONNECTION_POLICY: Final[ConnectionPolicy] = "prefer_newest"

DedupeMode: TypeAlias = Literal["retention_scoped", "permanent"]
DEDUPE_MODES: Final[tuple[DedupeMode, ...]] = ("retention_scoped", "permanent")
