"""Feature negotiation: the offer of a broker, judged by a daemon (docs/spec/protocol.md, Features)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from claudemesh.protocol.errors import CLOSE_KINDS, CloseCode, InvalidField
from claudemesh.protocol.frames import FeatureResponse
from claudemesh.protocol.wire import (
    BATCH_ITEMS,
    CONNECTION_POLICIES,
    DEDUPE_MODES,
    DEFAULT_BLOB_BYTES,
    DEFAULT_CONNECTION_POLICY,
    DEFAULT_INLINE_BYTES,
    MIN_PAYLOAD_BYTES,
    ConnectionPolicy,
    DedupeMode,
)

DEDUPE: Final = "client_message_id_dedupe"
CONNECTION_POLICY: Final = "concurrent_connection_policy"
ROTATED_EVENT: Final = "member_keypair_rotated_event"
KEY_EPOCH: Final = "key_epoch"
MAX_PAYLOAD: Final = "max_payload"
PRESENCE: Final = "presence"
FRAME_BATCHES: Final = "frame_batches"

REQUIRED: Final = (DEDUPE, CONNECTION_POLICY, KEY_EPOCH)
OPTIONAL: Final = (ROTATED_EVENT, MAX_PAYLOAD, PRESENCE, FRAME_BATCHES)
VERSIONS: Final[Mapping[str, int]] = {
    DEDUPE: 2,
    CONNECTION_POLICY: 1,
    ROTATED_EVENT: 1,
    KEY_EPOCH: 1,
    MAX_PAYLOAD: 1,
    PRESENCE: 1,
    FRAME_BATCHES: 1,
}

MIN_RETENTION_DAYS: Final = 7
# Upper bound of a parameter; a larger number is taken for a mistake.
MAX_PARAMETER: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Features:
    """The features that a daemon and a broker agreed on.

    None means that a feature was not offered. `dedupe_retention_days` is None when ids are kept for ever.
    """

    dedupe_mode: DedupeMode
    dedupe_retention_days: int | None
    tombstone_days: int | None
    inline_bytes: int
    blob_bytes: int
    default_policy: ConnectionPolicy
    key_epochs: int | None
    rotated_event: bool
    presence: bool = False
    # The most sends of one frame; 1 when the broker takes none with several.
    batch_items: int = 1
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object that broker_features.json keeps."""
        return {**asdict(self), "warnings": list(self.warnings)}

    @classmethod
    def from_dict(cls, value: object) -> Features:
        """Return the features that broker_features.json keeps. `InvalidField` invalid_features."""
        if not isinstance(value, dict):
            raise _invalid("features")
        for field in fields(cls):
            if not _KEPT[field.name](value.get(field.name)):
                raise _invalid(field.name)
        if (value["dedupe_mode"] == "permanent") != (value["dedupe_retention_days"] is None):
            raise _invalid("dedupe_retention_days")
        kept = {field.name: value[field.name] for field in fields(cls) if field.name not in _LATER}
        kept["presence"] = value.get("presence") is True
        kept["batch_items"] = value.get("batch_items") or 1
        return cls(**{**kept, "warnings": tuple(value["warnings"])})


@dataclass(frozen=True, slots=True)
class FeatureFailure:
    """A required feature that is unusable. The daemon closes with this code and exits with 78."""

    close_code: CloseCode
    feature: str
    detail: str

    @property
    def kind(self) -> str:
        """The kind of the close reason."""
        return CLOSE_KINDS[self.close_code]


def negotiate(
    require: Sequence[str], optional: Sequence[str], response: FeatureResponse
) -> Features | FeatureFailure:
    """Return the features of a broker's offer, or the first failure.

    A required feature must be usable. An unusable optional feature falls back to its default with a warning.
    """
    for name in require:
        if name in response.missing_required or name not in response.supported:
            return FeatureFailure(CloseCode.FEATURE_UNAVAILABLE, name, "the broker does not offer it")
    offer = _Offer(frozenset(require), response.supported)
    for name in dict.fromkeys((*require, *optional)):
        failure = offer.judge(name)
        if failure is not None:
            return failure
    return offer.features()


def broker_offer(
    *,
    mode: str,
    retention_days: int | None,
    inline_bytes: int,
    blob_bytes: int,
    policy: str,
    key_epochs: int | None = None,
) -> dict[str, Any]:
    """Return the field `supported` of a feature_negotiation_response.

    `key_epochs` is the number of epochs of a topic that are accepted; None leaves the feature out.
    """
    dedupe: dict[str, object] = {"mode": mode, "request_fingerprint": True}
    if mode == "retention_scoped":
        dedupe["dedupe_retention_days"] = retention_days
    params: dict[str, dict[str, object]] = {
        DEDUPE: dedupe,
        CONNECTION_POLICY: {"default_policy": policy},
        ROTATED_EVENT: {},
        MAX_PAYLOAD: {"inline_bytes": inline_bytes, "blob_bytes": blob_bytes},
        PRESENCE: {},
        FRAME_BATCHES: {"max_items": BATCH_ITEMS},
    }
    if key_epochs is not None:
        params[KEY_EPOCH] = {"max_concurrent_epochs": key_epochs}
    return {name: {"params": {"version": VERSIONS[name], **params[name]}} for name in params}


class _Unusable(Exception):
    """A parameter that makes its feature unusable."""

    def __init__(self, close_code: CloseCode, detail: str) -> None:
        super().__init__(detail)
        self.close_code = close_code
        self.detail = detail


class _Offer:
    """The offer of one broker while its features are judged one by one."""

    def __init__(self, required: frozenset[str], supported: Mapping[str, Any]) -> None:
        self._required = required
        self._supported = supported
        self._warnings: list[str] = []
        self._agreed: dict[str, Any] = {
            "dedupe_mode": "permanent",
            "dedupe_retention_days": None,
            "tombstone_days": None,
            "inline_bytes": DEFAULT_INLINE_BYTES,
            "blob_bytes": DEFAULT_BLOB_BYTES,
            "default_policy": DEFAULT_CONNECTION_POLICY,
            "key_epochs": None,
            "rotated_event": False,
            "presence": False,
            "batch_items": 1,
        }

    def judge(self, name: str) -> FeatureFailure | None:
        """Adopt the parameters of a feature. A failure is returned only if the feature is required."""
        if name not in self._supported:
            return None
        try:
            self._agreed |= self._usable(name)
        except _Unusable as error:
            if name in self._required:
                return FeatureFailure(error.close_code, name, error.detail)
            self._warnings.append(f"{name}: {error.detail}")
        return None

    def features(self) -> Features:
        """Return the features that were adopted."""
        return Features(**self._agreed, warnings=tuple(self._warnings))

    def _usable(self, name: str) -> dict[str, Any]:
        offered = self._supported[name]
        params = offered.get("params") if isinstance(offered, dict) else None
        if not isinstance(params, dict):
            raise _Unusable(CloseCode.FEATURE_PARAM_INVALID, "it has no parameters")
        if name not in VERSIONS:  # required by the configuration; its parameters are unknown here
            return {}
        version = params.get("version")
        if type(version) is not int or version != VERSIONS[name]:
            raise _Unusable(CloseCode.FEATURE_PARAM_INVALID, f"version must be {VERSIONS[name]}")
        if name == DEDUPE:
            return self._dedupe(params)
        if name == CONNECTION_POLICY:
            return self._policy(params)
        if name == KEY_EPOCH:
            return {"key_epochs": _at_least(params, "max_concurrent_epochs", 1)}
        if name == MAX_PAYLOAD:
            return {key: _at_least(params, key, MIN_PAYLOAD_BYTES) for key in ("inline_bytes", "blob_bytes")}
        if name == FRAME_BATCHES:
            return {"batch_items": min(_at_least(params, "max_items", 1), BATCH_ITEMS)}
        return {"presence" if name == PRESENCE else "rotated_event": True}

    def _dedupe(self, params: Mapping[str, Any]) -> dict[str, Any]:
        mode, days = params.get("mode"), None
        if mode not in DEDUPE_MODES:
            raise _Unusable(CloseCode.FEATURE_PARAM_INVALID, f"mode must be one of {', '.join(DEDUPE_MODES)}")
        if mode == "retention_scoped":
            days = _at_least(params, "dedupe_retention_days", MIN_RETENTION_DAYS)
        if params.get("request_fingerprint") is not True:
            raise _Unusable(CloseCode.FEATURE_PARAM_INVALID, "request_fingerprint must be true")
        tombstone_days = params.get("tombstone_history_pruned_window_days")
        if tombstone_days is not None and not _whole(tombstone_days, 0):
            self._warnings.append(f"{DEDUPE}: tombstone_history_pruned_window_days is not a number of days")
            tombstone_days = None
        return {"dedupe_mode": mode, "dedupe_retention_days": days, "tombstone_days": tombstone_days}

    def _policy(self, params: Mapping[str, Any]) -> dict[str, Any]:
        policy = params.get("default_policy")
        if policy not in CONNECTION_POLICIES:
            self._warnings.append(
                f"{CONNECTION_POLICY}: default_policy is not one of {', '.join(CONNECTION_POLICIES)}"
            )
            policy = DEFAULT_CONNECTION_POLICY
        return {"default_policy": policy}


def _at_least(params: Mapping[str, Any], name: str, floor: int) -> int:
    value = params.get(name)
    # The exact type is checked first: a bool is an int in Python, and NaN compares below no floor.
    if type(value) is not int or value > MAX_PARAMETER:
        raise _Unusable(CloseCode.FEATURE_PARAM_INVALID, f"{name} must be a whole number")
    if value < floor:
        raise _Unusable(CloseCode.FEATURE_PARAM_BELOW_FLOOR, f"{name} must be at least {floor}")
    return value


def _whole(value: object, floor: int) -> bool:
    return type(value) is int and floor <= value <= MAX_PARAMETER


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


# Fields that files of earlier versions lack.
_LATER: Final = ("presence", "batch_items")

_KEPT: Final[Mapping[str, Any]] = {
    "dedupe_mode": lambda value: value in DEDUPE_MODES,
    "dedupe_retention_days": lambda value: value is None or _whole(value, MIN_RETENTION_DAYS),
    "tombstone_days": lambda value: value is None or _whole(value, 0),
    "inline_bytes": lambda value: _whole(value, MIN_PAYLOAD_BYTES),
    "blob_bytes": lambda value: _whole(value, MIN_PAYLOAD_BYTES),
    "default_policy": lambda value: value in CONNECTION_POLICIES,
    "key_epochs": lambda value: value is None or _whole(value, 1),
    "rotated_event": lambda value: isinstance(value, bool),
    # Missing in files of earlier versions.
    "presence": lambda value: value is None or isinstance(value, bool),
    "batch_items": lambda value: value is None or _whole(value, 1),
    "warnings": _texts,
}


def _invalid(field: str) -> InvalidField:
    return InvalidField(
        "invalid_features",
        field,
        f"The field {field} of the kept features is damaged. The next connection negotiates them again.",
    )
