"""Paths of shared and fetched files, each with its refusal (docs/spec/daemon.md, Shared files)."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from claudemesh.cli.file import check_seen
from claudemesh.daemon.files.source import open_source
from claudemesh.daemon.files.spool import Spool, SpoolLimits
from claudemesh.daemon.files.target import cannot_write, open_target
from claudemesh.daemon.files.view import private_mount
from claudemesh.protocol.errors import ProtocolError
from claudemesh.runtime.exits import ExitWith

ID = "01HZ0000000000000000000000"
LONG = "n" * 300

# `{}` is the folder of the test.
SOURCES = [
    ("relative", "invalid_field"),
    ("", "invalid_field"),
    ("/a\0b", "invalid_field"),
    ("/\ud800", "invalid_field"),
    ("/" + "d/" * 3000, "invalid_field"),
    ("{}/none", "file_not_found"),
    ("{}/file/below", "file_not_found"),
    (f"{{}}/{LONG}", "file_unreadable"),
    ("{}/loop", "file_unreadable"),
    ("{}/fifo", "not_a_regular_file"),
    ("{}/sock", "not_a_regular_file"),
    ("{}/home", "not_a_regular_file"),
    ("{}/../", "not_a_regular_file"),
    ("/dev/null", "not_a_regular_file"),
    ("/dev/zero", "not_a_regular_file"),
    ("{}/to-null", "not_a_regular_file"),
    ("/proc/self", "not_a_regular_file"),
    ("/proc/self/status", "source_changed"),
    ("/proc/self/mem", "not_a_regular_file"),
    ("/proc/self/root{}/home/keypair.json", "own_directory"),
    ("{}/home/keypair.json", "own_directory"),
    ("{}/link", "own_directory"),
    ("{}/folder/keypair.json", "own_directory"),
    ("{}/home/../link", "own_directory"),
    ("{}//home/./keypair.json", "own_directory"),
]
TARGETS = [
    ("relative", "invalid_field"),
    ("", "invalid_field"),
    ("/a\0b", "invalid_field"),
    ("/\ud800", "invalid_field"),
    ("{}/none/x", "directory_not_found"),
    ("{}/none/", "directory_not_found"),
    ("{}/file/x", "directory_not_found"),
    ("{}/dangling/x", "directory_not_found"),
    ("{}/none/..", "invalid_field"),
    (f"{{}}/{LONG}", "file_unwritable"),
    ("{}/loop/x", "file_unwritable"),
    ("/proc/", "file_unwritable"),
    ("{}/loop", "file_exists"),
    ("{}/file", "file_exists"),
    ("{}/fifo", "file_exists"),
    ("{}/sock", "file_exists"),
    ("{}/to-null", "file_exists"),
    ("{}/dangling", "file_exists"),
    ("/dev/null", "file_exists"),
    ("{}/home", "own_directory"),
    ("{}/home/keypair.json", "own_directory"),
    ("{}/home/new", "own_directory"),
    ("{}/folder", "own_directory"),
    ("{}/folder/x", "own_directory"),
    ("{}/home/../home/x", "own_directory"),
    ("/proc/self/root{}/home/x", "own_directory"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of each kind, and a home with a key."""
    made = tmp_path_factory.mktemp("paths")
    (made / "home").mkdir()
    (made / "home" / "keypair.json").write_text("secret")
    (made / "file").write_text("text")
    os.mkfifo(made / "fifo")
    links = {
        "link": "home/keypair.json",
        "folder": "home",
        "loop": "loop",
        "dangling": "nowhere",
        "to-null": "/dev/null",
    }
    for name, target in links.items():
        (made / name).symlink_to(target)
    before = Path.cwd()
    os.chdir(made)
    try:
        # Its whole path may be too long for a socket.
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind("sock")
    finally:
        os.chdir(before)
    return made


def _names(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


@pytest.mark.parametrize(("text", "code"), SOURCES)
def test_a_path_that_is_no_file_to_share_is_refused_in_a_sentence(folder: Path, text: str, code: str) -> None:
    """Nothing of it is left in the spool."""
    if text.startswith("/proc") and not Path("/proc/self/status").exists():
        pytest.skip("needs procfs")
    before = _names(folder)
    with pytest.raises(ProtocolError) as caught:
        source = open_source(text.replace("{}", str(folder)), folder / "home")
        try:
            Spool(folder / "spool").add(source, "f", bytes(32), SpoolLimits(1 << 20, 1 << 20))
        finally:
            os.close(source.descriptor)
    assert (caught.value.code, caught.value.message[-1]) == (code, ".")
    assert _names(folder) - {str(folder / "spool")} == before - {str(folder / "spool")}


@pytest.mark.parametrize(("text", "code"), TARGETS)
def test_a_place_that_a_fetched_file_may_not_have_is_refused_in_a_sentence(
    folder: Path, text: str, code: str
) -> None:
    """Nothing is left there, and what was there is unchanged."""
    if text.startswith("/proc") and not Path("/proc/self/root").exists():
        pytest.skip("needs procfs")
    before = _names(folder)
    with pytest.raises(ProtocolError) as caught:
        open_target(text.replace("{}", str(folder)), "name.txt", ID, folder / "home")
    assert (caught.value.code, caught.value.message[-1]) == (code, ".")
    assert _names(folder) == before
    assert (folder / "file").read_text() == "text"


@pytest.mark.parametrize("name", ["a\nb", "\u202ename", "-rf", "ä" * 127, "..hidden", "tab\tand\x1b[31m"])
def test_a_strange_name_that_the_caller_gives_is_taken_as_it_is(tmp_path: Path, name: str) -> None:
    """The caller chose it. Only the name that a sender offers is cleaned."""
    made = open_target(str(tmp_path / name), "offered", ID, tmp_path / "home")
    made.finish()
    made.tidy()
    made.close()
    assert os.listdir(tmp_path) == [name]
    source = open_source(str(tmp_path / name), tmp_path / "home")
    assert source.name == name
    os.close(source.descriptor)


_MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /run rw,nosuid shared:5 - tmpfs tmpfs rw
90 22 254:0 /tmp/systemd-private-0a1b-claudemesh.service-x1/tmp /tmp rw,relatime - ext4 /dev/vda rw
91 22 254:0 /var/tmp/systemd-private-0a1b-claudemesh.service-x2/tmp /var/tmp rw,relatime - ext4 /dev/vda rw
93 22 254:0 /srv/systemd-private-0a1b-runner.service-x3/tmp /srv/ci rw,relatime - ext4 /dev/vda rw
92 90 0:40 / /tmp/disk\\040one rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/tmp/x", "/tmp"),
        ("/tmp", "/tmp"),
        ("/var/tmp/a/b", "/var/tmp"),
        ("/tmp/disk one/x", None),
        ("/tmpfile", None),
        ("/srv/ci/x", None),
        ("/home/ada/x", None),
        ("/run/x", None),
        ("/", None),
    ],
)
def test_a_service_with_its_own_tmp_knows_which_paths_its_callers_do_not_see(
    path: str, own: str | None
) -> None:
    assert private_mount(_MOUNTS, path) == own
    assert private_mount("garbage\n\n", path) is None


def test_a_folder_that_a_service_may_only_read_is_refused_with_the_setting_that_permits_it() -> None:
    error = cannot_write(Path("/srv/work"), OSError(30, "Read-only file system"))
    assert error.code == "file_unwritable"
    assert "`ReadWritePaths=/srv/work`" in error.message


def test_a_fetched_file_that_only_the_daemon_sees_is_said_by_the_command_line(tmp_path: Path) -> None:
    """A link to nowhere is there all the same."""
    (tmp_path / "dangling").symlink_to("nowhere")
    check_seen(str(tmp_path / "dangling"))
    with pytest.raises(ExitWith) as caught:
        check_seen(str(tmp_path / "none"))
    assert caught.value.error == "private_directory"
