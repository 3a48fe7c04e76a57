"""Golden vectors of the request fingerprint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from claudemesh.protocol.canonical import canonical_meta, parse_json
from claudemesh.protocol.fingerprint import fingerprint_preimage, request_fingerprint

VECTORS = json.loads(Path(__file__).with_name("request_fingerprint.json").read_text("utf-8"))["vectors"]


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_vector_is_reproduced(vector: dict[str, Any]) -> None:
    """Canonical meta, preimage and fingerprint are those of the golden case."""
    request = vector["request"]
    meta = parse_json(request["meta_json"].encode()) if "meta_json" in request else request["meta"]
    body = request["body_utf8"].encode() if "body_utf8" in request else bytes.fromhex(request["body_hex"])
    fields: dict[str, Any] = {
        "version": request["envelope_version"],
        "kind": request["destination_kind"],
        "ref": request["destination_ref"],
        "reply_to_id": request["reply_to_id"],
        "priority": request["priority"],
        "meta": meta,
        "body": body,
    }
    assert canonical_meta(meta).decode() == vector["meta_canonical_json"]
    assert fingerprint_preimage(**fields).hex() == vector["preimage_hex"]
    assert request_fingerprint(**fields).hex() == vector["fingerprint_hex"]


def test_vectors_are_all_there() -> None:
    """An empty file fails."""
    assert len(VECTORS) >= 22
