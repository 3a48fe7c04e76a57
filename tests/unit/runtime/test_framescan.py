"""The scanner sees the frames that the library parses, however the stream is cut."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Opcode
from websockets.protocol import Protocol, Side

from claudemesh.runtime.framescan import BYTES_PER_FRAGMENT, FRAGMENTS, FrameScanner

ALL = 1 << 30


def frame(opcode: int, size: int, *, final: bool = True, masked: bool = True) -> bytes:
    length = (
        bytes((size,))
        if size < 126
        else bytes((126,)) + size.to_bytes(2, "big")
        if size < 1 << 16
        else bytes((127,)) + size.to_bytes(8, "big")
    )
    mask = 0x80 if masked else 0
    head = bytes(((0x80 if final else 0) | opcode, length[0] | mask)) + length[1:]
    return head + (bytes(4) if masked else b"") + b"x" * size


sizes = st.one_of(st.sampled_from([0, 1, 125, 126, 127, 65_535, 65_536]), st.integers(0, 300))
controls = st.builds(frame, st.sampled_from([9, 10]), st.integers(0, 125))


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A message in one frame or several, with control frames between them."""
    parts = draw(st.lists(sizes, min_size=1, max_size=4))
    raw = b""
    for number, size in enumerate(parts):
        raw += frame(1 if number == 0 else 0, size, final=number == len(parts) - 1)
        raw += draw(st.one_of(st.just(b""), controls))
    return raw


def scan(data: bytes, cuts: list[int], most: int = ALL) -> FrameScanner:
    scanner = FrameScanner()
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for begin, end in itertools.pairwise(edges):
        at = begin
        while at < end:
            before, at = at, scanner.scan(data, at, end, most)
            assert before < at <= end
    return scanner


@given(st.lists(st.one_of(messages(), controls), max_size=8), st.lists(st.integers(0, 1 << 20), max_size=20))
def test_it_counts_what_the_library_parses(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    library = Protocol(Side.SERVER, max_size=None)
    library.receive_data(data)
    assert library.parser_exc is None
    frames = library.events_received()
    scanner = scan(data, cuts)
    assert scanner.frames == len(frames)
    alone, light = True, 0
    for one in frames:
        is_control = one.opcode in (Opcode.PING, Opcode.PONG)  # type: ignore[union-attr]
        is_empty = not one.data  # type: ignore[union-attr]
        light += is_control or (is_empty and (alone or not one.fin))  # type: ignore[union-attr]
        if not is_control:
            alone = one.fin  # type: ignore[union-attr]
    assert scanner.light == light


@given(st.binary(max_size=600), st.lists(st.integers(0, 600), max_size=20), st.integers(1, 5))
def test_any_cut_of_any_bytes_gives_the_same_counts(data: bytes, cuts: list[int], most: int) -> None:
    """Also of bytes that are no frames, and in steps of any number of frames."""
    whole, cut = scan(data, []), scan(data, cuts, most)
    assert (whole.frames, whole.light, whole.is_splintered) == (cut.frames, cut.light, cut.is_splintered)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=60), st.integers(1, 10))
def test_a_step_ends_behind_its_last_frame(sizes: list[int], most: int) -> None:
    """So that the library parses no frame more than were counted."""
    frames = [frame(1, size) for size in sizes]
    data = b"".join(frames)
    scanner = FrameScanner()
    end = scanner.scan(data, 0, len(data), most)
    assert end == sum(map(len, frames[:most]))
    assert scanner.frames == min(most, len(frames))


def test_a_message_in_many_small_fragments_is_splintered() -> None:
    """A large message may have many fragments; single bytes are no legitimate use."""
    small = frame(1, 1, final=False) + frame(0, 1, final=False) * FRAGMENTS
    fair = frame(1, BYTES_PER_FRAGMENT, final=False) + frame(0, BYTES_PER_FRAGMENT, final=False) * 5000
    assert not scan(small[: -len(frame(0, 1))], []).is_splintered
    assert scan(small + frame(0, 1, final=False) * 8, []).is_splintered
    assert not scan(fair, []).is_splintered


def test_whole_messages_are_never_splintered() -> None:
    assert not scan(frame(1, 5) * 5000, []).is_splintered
