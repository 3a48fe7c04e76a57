"""Ranges of uploads and downloads: those of the blob, and no others (docs/spec/protocol.md, Blobs)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claudemesh.broker.blobs.ranges import LEAST_PART, Part, uploaded_part, wanted_part
from claudemesh.protocol.errors import ProtocolError

SIZE = 200_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bytes */200000",
        "bytes 0-1/*",
        "bytes 5-4/200000",
        "bytes 0-200000/200000",
        "bytes 0-199999/200001",
        "bytes 0-199999/1",
        "bytes -1-5/200000",
        "bytes 0-0/200000",
        "bytes 0-65534/200000",
        "bytes 0-99999999999999999999/200000",
        "bits 0-199999/200000",
        "bytes 0-199999/200000, 0-1/200000",
        "bytes ٠-199999/200000",
    ],
)
def test_a_part_that_is_not_one_of_the_blob_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        uploaded_part(text, SIZE)
    assert (caught.value.code, caught.value.status) == ("invalid_range", 400)


def test_the_last_part_may_be_short() -> None:
    assert uploaded_part(f"bytes {SIZE - 1}-{SIZE - 1}/{SIZE}", SIZE) == Part(SIZE - 1, SIZE)
    assert uploaded_part(f"bytes 0-{LEAST_PART - 1}/{SIZE}", SIZE) == Part(0, LEAST_PART)


@given(st.integers(1, 2**40), st.integers(0, 2**41), st.none() | st.integers(0, 2**41))
def test_a_wanted_part_lies_in_the_blob(size: int, first: int, last: int | None) -> None:
    text = f"bytes={first}-" if last is None else f"bytes={first}-{last}"
    if first >= size or (last is not None and last < first):
        with pytest.raises(ProtocolError) as caught:
            wanted_part(text, size)
        assert (caught.value.status, caught.value.fields["size"]) == (416, size)
        return
    part = wanted_part(text, size)
    assert part is not None
    assert 0 <= part.first < part.end <= size


@pytest.mark.parametrize("text", [None, "bytes=-5", "bytes=0-1,5-6", "items=0-5", ""])
def test_other_ranges_ask_for_the_whole(text: str | None) -> None:
    assert wanted_part(text, SIZE) is None
