"""Folders that another user could change or replace are refused, wherever the weak place is."""

from __future__ import annotations

import inspect
import os
import socket
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest

import claudemesh.runtime.trust
import claudemesh.sdk
from claudemesh.runtime.trust import distrust, distrust_socket

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "outer" / "inner"
    made.mkdir(parents=True, mode=0o700)
    made.parent.chmod(0o700)
    return made


def test_a_private_folder_below_private_and_sticky_ones_is_trusted(folder: Path) -> None:
    assert distrust(os.fspath(folder)) is None
    folder.parent.chmod(0o1777)
    assert distrust(os.fspath(folder)) is None


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o722])
def test_a_folder_that_others_can_write_to_is_refused_with_the_remedy(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    assert f"chmod 700 {folder}" in str(distrust(os.fspath(folder)))


def test_an_ancestor_that_everybody_can_write_to_is_refused_however_far_up(folder: Path) -> None:
    below = folder / "a" / "b"
    below.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o777)
    assert f"chmod go-w {folder.parent}" in str(distrust(os.fspath(below)))


def test_a_symbolic_link_in_the_folders_place_is_refused(folder: Path) -> None:
    link = folder / "link"
    link.symlink_to(folder)
    assert "symbolic link" in str(distrust(os.fspath(link)))


@as_root
@pytest.mark.parametrize("place", ["folder", "ancestor"])
def test_a_folder_or_an_ancestor_of_another_user_is_refused(folder: Path, place: str) -> None:
    foreign = folder if place == "folder" else folder.parent
    os.chown(foreign, NOBODY, NOBODY)
    assert f"{foreign} belongs to another user" in str(distrust(os.fspath(folder)))


@as_root
def test_an_ancestor_behind_a_symbolic_link_counts_as_well(folder: Path, tmp_path: Path) -> None:
    real = tmp_path / "foreign" / "mine"
    real.mkdir(parents=True, mode=0o700)
    os.chown(real.parent, NOBODY, NOBODY)
    link = folder / "link"
    link.symlink_to(real.parent)
    assert f"{real.parent} belongs to another user" in str(distrust(os.fspath(link / "mine")))


@as_root
def test_a_symbolic_link_of_another_user_on_the_way_is_refused(folder: Path, tmp_path: Path) -> None:
    real = tmp_path / "mine"
    real.mkdir(mode=0o700)
    link = folder / "link"
    link.symlink_to(tmp_path)
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    assert f"{link} belongs to another user" in str(distrust(os.fspath(link / "mine")))


@as_root
def test_the_folder_of_a_link_that_a_link_leads_to_counts_as_well(folder: Path, tmp_path: Path) -> None:
    """first -> foreign/second -> real."""
    (tmp_path / "real" / "mine").mkdir(parents=True, mode=0o700)
    foreign = tmp_path / "foreign"
    foreign.mkdir(mode=0o700)
    (foreign / "second").symlink_to(tmp_path / "real")
    os.chown(foreign, NOBODY, NOBODY)
    (folder / "first").symlink_to(foreign / "second")
    assert f"{foreign} belongs to another user" in str(distrust(os.fspath(folder / "first" / "mine")))


def test_links_that_lead_to_one_another_end_in_an_error(folder: Path) -> None:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        distrust(os.fspath(folder / "a" / "mine"))


def test_links_within_ones_own_folders_are_followed(folder: Path) -> None:
    (folder / "real" / "mine").mkdir(parents=True, mode=0o700)
    (folder / "link").symlink_to("../inner/./real")
    assert distrust(os.fspath(folder / "link" / "mine")) is None


@pytest.fixture
def sock(folder: Path) -> Generator[Path]:
    path = folder / "sock"
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(os.fspath(path))
        yield path


def test_a_socket_of_ones_own_below_private_folders_is_trusted(sock: Path) -> None:
    assert distrust_socket(os.fspath(sock)) is None


@as_root
@pytest.mark.parametrize("place", ["socket", "folder", "ancestor"])
def test_a_socket_that_another_user_made_or_can_replace_is_refused(sock: Path, place: str) -> None:
    foreign = {"socket": sock, "folder": sock.parent, "ancestor": sock.parent.parent}[place]
    os.chown(foreign, NOBODY, NOBODY)
    assert f"{foreign} belongs to another user" in str(distrust_socket(os.fspath(sock)))


def test_a_link_or_a_file_in_the_place_of_a_socket_is_refused(sock: Path) -> None:
    link, file = sock.with_name("link"), sock.with_name("file")
    link.symlink_to(sock)
    file.touch()
    for path in (link, file):
        assert "is not a socket" in str(distrust_socket(os.fspath(path)))


def test_a_missing_socket_is_an_error_of_the_system(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        distrust_socket(os.fspath(folder / "sock"))


@pytest.mark.parametrize(
    "name", ["distrust_socket", "distrust_ancestors", "_others_can_write", "_ancestors", "_is_unmapped"]
)
def test_the_sdk_stands_alone_and_has_the_same_rule(name: str) -> None:
    copy, original = getattr(claudemesh.sdk, name), getattr(claudemesh.runtime.trust, name)
    assert copy is not original
    assert inspect.getsource(copy) == inspect.getsource(original)
