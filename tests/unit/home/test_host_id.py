"""Host id: sources, and the comparison with the kept one (docs/spec/lifecycle.md, Clones)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from claudemesh.home import host_id
from claudemesh.home.host_file import accept_host, keep_host, load_host
from claudemesh.home.host_id import HostId, Verdict, compare, read_host_id
from claudemesh.runtime.exits import ExitWith

A, B = HostId("aa" * 32, "host"), HostId("bb" * 32, "host")
RANDOM = HostId("cc" * 32, "random")
OVERRIDE = HostId("aa" * 32, "override")

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads files of Linux")


@pytest.mark.parametrize(
    ("kept", "here", "verdict"),
    [
        (None, A, Verdict.KEEP),
        (None, None, Verdict.KEEP),
        (A, A, Verdict.SAME),
        (A, B, Verdict.OTHER),
        (A, OVERRIDE, Verdict.OTHER),
        (A, None, Verdict.UNAVAILABLE),
        (RANDOM, None, Verdict.UNAVAILABLE),
        (RANDOM, A, Verdict.KEEP),
    ],
)
def test_only_two_ids_that_differ_are_another_host(
    kept: HostId | None, here: HostId | None, verdict: Verdict
) -> None:
    """A start of an older version has kept none, and a random id says nothing about a host."""
    assert compare(kept, here) is verdict


def machine(root: Path, machine_id: str = "", **macs: str) -> Path:
    """A root with a machine id and interfaces; `usb` and `random` in a name say what it is."""
    if machine_id:
        (root / "etc").mkdir(parents=True)
        (root / "etc/machine-id").write_text(machine_id + "\n")
    for name, mac in macs.items():
        folder = root / "sys/class/net" / name
        folder.mkdir(parents=True)
        (folder / "address").write_text(mac + "\n")
        (folder / "addr_assign_type").write_text("3" if "random" in name else "0")
        bus = root / "sys/devices" / ("pci0/usb1/1-2" if "usb" in name else "pci0") / name
        bus.mkdir(parents=True)
        (folder / "device").symlink_to(bus)
    return root


def fingerprint(root: Path) -> str:
    found = read_host_id(root=root)
    assert found is not None
    return found.fingerprint


@linux
def test_a_clone_of_an_image_has_another_address(tmp_path: Path) -> None:
    """The same machine id with another wired interface is another host."""
    one = machine(tmp_path / "one", "m1", eth0="02:00:00:00:00:01")
    two = machine(tmp_path / "two", "m1", eth0="02:00:00:00:00:02")
    assert fingerprint(one) != fingerprint(two)


@linux
@pytest.mark.parametrize(
    "other",
    [
        {"docker0": "02:42:00:00:00:01"},
        {"lo": "00:00:00:00:00:00"},
        {"tun0": "02:00:00:00:00:09"},
        {"wg0": "02:00:00:00:00:09"},
        {"tailscale0": "02:00:00:00:00:09"},
        {"veth1": "02:00:00:00:00:09"},
        {"enx_usb_dock": "02:00:00:00:00:09"},
        {"eth_random": "02:00:00:00:00:09"},
        {"wlp3s0": "02:00:00:00:00:09"},
        {"eth1": "02:00:00:00:00:09"},
    ],
)
def test_an_interface_that_comes_and_goes_is_no_other_host(tmp_path: Path, other: dict[str, str]) -> None:
    """Virtual, removable, drawn and radio addresses do not count, nor does a second card."""
    plain = machine(tmp_path / "one", "m1", eth0="02:00:00:00:00:01")
    more = machine(tmp_path / "two", "m1", eth0="02:00:00:00:00:01", **other)
    assert fingerprint(plain) == fingerprint(more)


@linux
def test_without_a_machine_id_a_radio_counts(tmp_path: Path) -> None:
    """Without anything there is no id."""
    assert read_host_id(root=machine(tmp_path / "none")) is None
    radio = machine(tmp_path / "radio", wlan0="02:00:00:00:00:01")
    assert read_host_id(root=radio) is not None
    assert fingerprint(radio) != fingerprint(machine(tmp_path / "other", wlan0="02:00:00:00:00:02"))


def test_macos_prints_its_uuid_and_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ioreg and ifconfig print them."""
    printed = {
        "/usr/sbin/ioreg": '  | {\n  |   "IOPlatformUUID" = "01234567-89AB-CDEF-0123-456789ABCDEF"\n  | }\n',
        "/sbin/ifconfig": "en0: flags=8863<UP> mtu 1500\n\tether a4:83:e7:00:00:01\n\tinet6 fe80::1%en0\n",
    }
    monkeypatch.setattr(host_id, "_printed", lambda command: printed[command[0]])
    assert host_id._macos() == ("01234567-89AB-CDEF-0123-456789ABCDEF", "a4:83:e7:00:00:01")


def test_an_override_is_the_whole_id(tmp_path: Path) -> None:
    """It is the same on every machine, and differs from that of another text."""
    one = read_host_id("one", machine(tmp_path / "a", "m1"))
    assert one == read_host_id("one", machine(tmp_path / "b", "m2"))
    assert one != read_host_id("two", tmp_path)


def test_the_file_reads_back_and_is_private(tmp_path: Path) -> None:
    """0600, and the last host that was accepted."""
    path = tmp_path / "host_fingerprint.json"
    assert load_host(path) is None
    keep_host(path, A)
    assert load_host(path) == A
    assert path.stat().st_mode & 0o777 == 0o600
    assert accept_host(path, "another") == load_host(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"fingerprint": 5}',
        b'{"fingerprint": "aa", "source": "host"}',
        b'{"fingerprint": "%s", "source": "moon"}' % (b"aa" * 32),
    ],
)
def test_a_damaged_file_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    """A start does not take another host for the first one."""
    path = tmp_path / "host_fingerprint.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ExitWith) as caught:
        load_host(path)
    assert (caught.value.code, caught.value.error) == (78, "malformed_file")
    assert path.read_bytes() == content


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "host_fingerprint.json"
    keep_host(path, A)
    os.chmod(path, 0o644)
    with pytest.raises(ExitWith) as caught:
        load_host(path)
    assert caught.value.code == 77
