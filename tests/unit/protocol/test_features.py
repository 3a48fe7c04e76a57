from __future__ import annotations

import copy
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.protocol.errors import CloseCode, ProtocolError
from claudemesh.protocol.features import (
    OPTIONAL,
    REQUIRED,
    FeatureFailure,
    Features,
    broker_offer,
    negotiate,
)
from claudemesh.protocol.frames import FeatureResponse
from claudemesh.protocol.wire import DEFAULT_BLOB_BYTES, DEFAULT_INLINE_BYTES

DEDUPE, POLICY, EPOCHS = REQUIRED
OFFER: dict[str, Any] = {
    DEDUPE: {
        "params": {
            "version": 2,
            "mode": "retention_scoped",
            "dedupe_retention_days": 30,
            "request_fingerprint": True,
            "tombstone_history_pruned_window_days": 90,
        }
    },
    POLICY: {"params": {"version": 1, "default_policy": "prefer_oldest"}},
    "member_keypair_rotated_event": {"params": {"version": 1}},
    "key_epoch": {"params": {"version": 1, "max_concurrent_epochs": 2}},
    "max_payload": {"params": {"version": 1, "inline_bytes": 4096, "blob_bytes": 8192}},
}
AGREED = Features("retention_scoped", 30, 90, 4096, 8192, "prefer_oldest", 2, True)
GONE = object()
NO_WHOLE: list[object] = [GONE, None, True, False, "30", 30.0, math.nan, math.inf, [], {}, 2**31, 2**70]


def offer(feature: str = DEDUPE, **changes: object) -> dict[str, Any]:
    made = copy.deepcopy(OFFER)
    for name, value in changes.items():
        if value is GONE:
            del made[feature]["params"][name]
        else:
            made[feature]["params"][name] = value
    return made


def agree(
    supported: dict[str, Any], require: tuple[str, ...] = REQUIRED, missing: tuple[str, ...] = ()
) -> Features | FeatureFailure:
    return negotiate(require, OPTIONAL, FeatureResponse(supported, missing))


def failed(outcome: Features | FeatureFailure) -> FeatureFailure:
    assert isinstance(outcome, FeatureFailure), outcome
    assert outcome.detail
    return outcome


def agreed(outcome: Features | FeatureFailure) -> Features:
    assert isinstance(outcome, Features), outcome
    return outcome


def test_a_full_offer_is_adopted() -> None:
    """Every parameter of the page."""
    assert agree(OFFER) == AGREED


def test_least_offer_gets_the_defaults() -> None:
    """The optional features may all be absent."""
    least = {name: OFFER[name] for name in REQUIRED}
    expected = Features(
        "retention_scoped", 30, 90, DEFAULT_INLINE_BYTES, DEFAULT_BLOB_BYTES, "prefer_oldest", 2, False
    )
    assert agree(least) == expected


def test_permanent_mode_has_no_days() -> None:
    """Ids are kept for ever; days in the offer are ignored."""
    permanent = agreed(agree(offer(mode="permanent")))
    assert (permanent.dedupe_mode, permanent.dedupe_retention_days) == ("permanent", None)
    assert agreed(agree(offer(mode="permanent", dedupe_retention_days=GONE))).dedupe_retention_days is None


@pytest.mark.parametrize("feature", REQUIRED)
def test_required_feature_that_is_not_offered_closes_with_4010(feature: str) -> None:
    """Absent, or said to be missing."""
    absent = {name: value for name, value in OFFER.items() if name != feature}
    for outcome in (agree(absent), agree(OFFER, missing=(feature,))):
        assert failed(outcome).close_code == CloseCode.FEATURE_UNAVAILABLE
        assert (failed(outcome).feature, failed(outcome).kind) == (feature, "feature_unavailable")


INVALID: list[tuple[str, str, object]] = [
    *((DEDUPE, "version", value) for value in (GONE, None, 1, 3, "2", 2.0, True)),
    *((DEDUPE, "mode", value) for value in (GONE, None, "", "forever", 5, ["permanent"], {})),
    *((DEDUPE, "dedupe_retention_days", value) for value in NO_WHOLE),
    *((DEDUPE, "request_fingerprint", value) for value in (GONE, None, False, 1, "true")),
    *((POLICY, "version", value) for value in (GONE, 2, True, "1")),
    *((EPOCHS, "max_concurrent_epochs", value) for value in NO_WHOLE),
]


@pytest.mark.parametrize(("feature", "name", "value"), INVALID)
def test_wrong_required_parameter_closes_with_4011(feature: str, name: str, value: object) -> None:
    """Missing, of the wrong type, an unknown version or mode; a bool is no integer, NaN no number."""
    failure = failed(agree(offer(feature, **{name: value})))
    assert (failure.close_code, failure.feature) == (CloseCode.FEATURE_PARAM_INVALID, feature)
    assert name in failure.detail


@pytest.mark.parametrize("days", [6, 1, 0, -1, -(2**70)])
def test_retention_below_the_floor_closes_with_4012(days: int) -> None:
    """dedupe_retention_days is at least 7."""
    failure = failed(agree(offer(dedupe_retention_days=days)))
    assert (failure.close_code, failure.kind) == (
        CloseCode.FEATURE_PARAM_BELOW_FLOOR,
        "feature_param_below_floor",
    )


def test_no_epoch_closes_with_4012() -> None:
    """max_concurrent_epochs is at least 1."""
    failure = failed(agree(offer(EPOCHS, max_concurrent_epochs=0)))
    assert failure.close_code == CloseCode.FEATURE_PARAM_BELOW_FLOOR


def test_retention_at_the_floor_is_enough() -> None:
    """Seven days."""
    assert agreed(agree(offer(dedupe_retention_days=7))).dedupe_retention_days == 7


@pytest.mark.parametrize("feature", [*REQUIRED, *OPTIONAL])
@pytest.mark.parametrize("entry", [None, 5, [], "x", True, {}, {"params": None}, {"params": []}])
def test_feature_without_parameters_is_unusable(feature: str, entry: object) -> None:
    """4011 where it is required, a warning where it is not."""
    outcome = agree({**OFFER, feature: entry})
    if feature in REQUIRED:
        assert failed(outcome).close_code == CloseCode.FEATURE_PARAM_INVALID
    else:
        assert [warning.split(":")[0] for warning in agreed(outcome).warnings] == [feature]


OPTIONAL_INVALID: list[tuple[str, str, object, CloseCode]] = [
    *(
        (feature, name, value, CloseCode.FEATURE_PARAM_INVALID)
        for feature, name in (
            ("max_payload", "inline_bytes"),
            ("max_payload", "blob_bytes"),
        )
        for value in NO_WHOLE
    ),
    ("max_payload", "inline_bytes", 1023, CloseCode.FEATURE_PARAM_BELOW_FLOOR),
    ("max_payload", "blob_bytes", 1023, CloseCode.FEATURE_PARAM_BELOW_FLOOR),
    ("member_keypair_rotated_event", "version", 2, CloseCode.FEATURE_PARAM_INVALID),
]
DEFAULTS: dict[str, dict[str, object]] = {
    "max_payload": {"inline_bytes": DEFAULT_INLINE_BYTES, "blob_bytes": DEFAULT_BLOB_BYTES},
    "member_keypair_rotated_event": {"rotated_event": False},
}


@pytest.mark.parametrize(("feature", "name", "value", "code"), OPTIONAL_INVALID)
def test_optional_feature_falls_back_and_warns_but_fails_when_required(
    feature: str, name: str, value: object, code: CloseCode
) -> None:
    """The daemon's default and a line in its log; required by configuration it is strict."""
    broken = offer(feature, **{name: value})
    lenient = agreed(agree(broken))
    assert {key: getattr(lenient, key) for key in DEFAULTS[feature]} == DEFAULTS[feature]
    assert len(lenient.warnings) == 1
    assert failed(agree(broken, require=(*REQUIRED, feature))).close_code == code


@pytest.mark.parametrize("value", [GONE, None, 5, "newest", ["prefer_newest"]])
def test_policy_falls_back_and_warns(value: object) -> None:
    """default_policy is optional within a required feature."""
    features = agreed(agree(offer(POLICY, default_policy=value)))
    assert features.default_policy == "prefer_newest"
    assert len(features.warnings) == 1


@pytest.mark.parametrize("value", [True, "90", -1, 1.5, math.nan, 2**70, []])
def test_tombstone_window_falls_back_and_warns(value: object) -> None:
    """An optional parameter within a required feature."""
    features = agreed(agree(offer(tombstone_history_pruned_window_days=value)))
    assert features.tombstone_days is None
    assert len(features.warnings) == 1


def test_an_unknown_feature_can_be_required() -> None:
    """`[features] require` may name a feature of a newer broker."""
    require = (*REQUIRED, "from_the_future")
    assert failed(agree(OFFER, require=require)).feature == "from_the_future"
    assert agree({**OFFER, "from_the_future": {"params": {}}}, require=require) == AGREED


@pytest.mark.parametrize("mode", ["retention_scoped", "permanent"])
@pytest.mark.parametrize("policy", ["prefer_newest", "prefer_oldest", "allow_concurrent"])
def test_the_offer_of_this_version_is_accepted(mode: str, policy: str) -> None:
    """Broker and daemon share this module."""
    sizes = {"inline_bytes": 2048, "blob_bytes": 4096}
    supported = broker_offer(mode=mode, retention_days=365, policy=policy, key_epochs=3, **sizes)
    features = agreed(agree(orjson.loads(orjson.dumps(supported))))
    assert (features.dedupe_mode, features.default_policy, features.inline_bytes) == (mode, policy, 2048)
    assert features.dedupe_retention_days == (365 if mode == "retention_scoped" else None)
    assert (features.presence, features.warnings) == (True, ())


def test_a_file_of_an_earlier_version_is_read_without_presence() -> None:
    """A file from before the feature was added."""
    kept = AGREED.to_dict()
    del kept["presence"]
    assert Features.from_dict(kept) == AGREED
    assert AGREED.presence is False


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_any_offer_results_in_valid_features_or_a_failure(data: st.DataObject) -> None:
    """No offer raises, and no parameter out of bounds is adopted."""
    made = copy.deepcopy(OFFER)
    for feature in data.draw(st.lists(st.sampled_from(sorted(made)), max_size=3, unique=True)):
        name = data.draw(st.sampled_from(sorted(made[feature]["params"])))
        made[feature]["params"][name] = data.draw(JSON)
    outcome = agree(made)
    if isinstance(outcome, Features):
        assert Features.from_dict(orjson.loads(orjson.dumps(outcome.to_dict()))) == outcome


@pytest.mark.parametrize(
    "features", [AGREED, agree(offer(mode="permanent")), agree(offer(POLICY, default_policy=5))]
)
def test_features_survive_their_file(features: Features) -> None:
    """broker_features.json holds the last negotiated features."""
    assert Features.from_dict(orjson.loads(orjson.dumps(features.to_dict()))) == features


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("dedupe_mode", "forever"),
        ("dedupe_mode", ["permanent"]),
        ("dedupe_retention_days", None),
        ("dedupe_retention_days", 6),
        ("dedupe_retention_days", True),
        ("tombstone_days", -1),
        ("inline_bytes", 1023),
        ("inline_bytes", 4096.0),
        ("blob_bytes", None),
        ("default_policy", "newest"),
        ("key_epochs", 0),
        ("rotated_event", 1),
        ("warnings", [5]),
        ("warnings", None),
        ("warnings", "text"),
    ],
)
def test_damaged_file_is_refused_by_field(field: str, value: object) -> None:
    """A file is input like any other."""
    with pytest.raises(ProtocolError) as caught:
        Features.from_dict({**AGREED.to_dict(), field: value})
    assert (caught.value.code, caught.value.fields) == ("invalid_features", {"field": field})


@pytest.mark.parametrize("value", [None, [], {}, "x"])
def test_file_of_another_shape_is_refused(value: object) -> None:
    """A file is input like any other."""
    with pytest.raises(ProtocolError, match="invalid_features"):
        Features.from_dict(value)


@pytest.mark.parametrize(("offered", "agreed_on"), [(1, 1), (8, 8), (32, 32), (1000, 32)])
def test_a_frame_has_at_most_as_many_sends_as_both_sides_take(offered: int, agreed_on: int) -> None:
    """A broker without the feature gets one send in each frame."""
    batches = {"frame_batches": {"params": {"version": 1, "max_items": offered}}}
    features = agreed(agree({**OFFER, **batches}))
    assert features.batch_items == agreed_on
    assert Features.from_dict(features.to_dict()) == features
    assert agreed(agree(OFFER)).batch_items == 1


@pytest.mark.parametrize("value", [*NO_WHOLE, 0])
def test_a_wrong_number_of_items_leaves_single_frames(value: object) -> None:
    """The feature is optional."""
    batches = {"frame_batches": {"params": {"version": 1, "max_items": 5}}}
    features = agreed(agree(offer_of(batches, value)))
    assert (features.batch_items, len(features.warnings)) == (1, 1)


def offer_of(batches: dict[str, Any], value: object) -> dict[str, Any]:
    """Return the full offer with this number of items."""
    params = dict(batches["frame_batches"]["params"])
    if value is GONE:
        del params["max_items"]
    else:
        params["max_items"] = value
    return {**OFFER, "frame_batches": {"params": params}}
