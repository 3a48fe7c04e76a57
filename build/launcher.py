"""The archive's first code: checks where it runs, serves what is in a hurry, unpacks once, starts the rest.

Standard library only, and little of it: every start of every command passes here. `os.path` instead of
pathlib, and modules imported where they are needed, because each would cost more than all of this does.
The build fills in the text between @ signs.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, NoReturn

TARGETS = "@TARGETS@"
COVERED = "@COVERED@"
TREE = "@TREE@"
ENTRY_POINT = "@ENTRY_POINT@"

CANNOT_CREATE = 73
CONFIGURATION = 78
INTERRUPTED = 130
UNUSED_S = 30 * 86_400
MOST_COMPILERS = 4
# Packages that most processes never import: they are compiled in memory where one does.
UNCOMPILED = "@UNCOMPILED@"
_MARKER = ".complete"
_DAY_S = 86_400
# The lock on the tree that this process runs from: held until it ends.
_held: list[int] = []


def target() -> str:
    """Return what native modules depend on, as `cp311-linux-x86_64`; 32 bits on a kernel of 64 are named."""
    kind = "cp" if sys.implementation.name == "cpython" else sys.implementation.name
    version = f"{sys.version_info[0]}{sys.version_info[1]}{sys.abiflags}"
    bits = "" if sys.maxsize > 1 << 32 else "-32bit"
    return f"{kind}{version}-{sys.platform}-{os.uname().machine}{bits}"


def tell(text: str) -> None:
    """Write a line to stderr, which may be closed or full."""
    if sys.stderr is not None:
        try:
            sys.stderr.write(f"claudemesh: {text}\n")
        except OSError:
            return


def refuse(message: str, code: int = CONFIGURATION) -> NoReturn:
    """End with one sentence on stderr."""
    tell(f"error: {message}")
    sys.exit(code)


def check_target() -> None:
    """Refuse a Python or a platform that the archive has no native modules for."""
    here = target()
    if here in TARGETS.split():
        return
    refuse(
        f"This file runs on {COVERED}. This is {here}. Start it with one of these Pythons, install the "
        "package for this one (pip install with the wheel of a release), or build the file on this machine: "
        "./build/pyz in a checkout, with CLAUDEMESH_PYTHON set to this Python."
    )


def check_libc() -> None:
    """Refuse a Linux without glibc, which the native modules are linked against."""
    if sys.platform == "linux":
        try:
            found = os.confstr("CS_GNU_LIBC_VERSION")
        except (OSError, ValueError):
            found = None
        if not found:
            refuse(
                "This file needs a Linux with glibc, and this system has another C library (musl?). "
                "Install the package (pip install with the wheel of a release), or use the container, or a "
                "Python of a distribution with glibc."
            )


def isolate() -> None:
    """Restart as the first line of the archive does, when Python was started another way.

    So nothing from PYTHONPATH, the user's site-packages, a sitecustomize or a .pth file stays in the
    process. The effects of such files before this line remain: a user who can write them can change what
    the user runs.
    """
    if sys.flags.isolated or os.environ.get("CLAUDEMESH_KEEP_PYTHONPATH") or not sys.executable:
        return
    if sys.stdout is not None:
        sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-IS", *sys.orig_argv[1:]])  # noqa: S606


def cache_folder() -> str:
    """Return where to unpack: $CLAUDEMESH_CACHE, else `claudemesh` in the user's cache folder."""
    chosen = os.environ.get("CLAUDEMESH_CACHE")
    if chosen:
        return os.path.abspath(chosen)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        home = os.environ.get("HOME")
        if not home:
            refuse("There is no HOME to unpack into. Set CLAUDEMESH_CACHE to a folder of your own.")
        base = os.path.join(os.path.abspath(home), ".cache")
    return os.path.join(base, "claudemesh")


def check_private(folder: str, tree: str) -> None:
    """Refuse a cache folder, or a tree in it, that another user can change or replace."""
    import claudemesh_trust  # type: ignore[import-not-found]

    reason = claudemesh_trust.distrust(folder)
    if reason is not None:
        refuse(f"Code is run from {folder}. {reason}. Or set CLAUDEMESH_CACHE to a folder of your own.")
    if os.path.lexists(tree) and claudemesh_trust.distrust(tree) is not None:
        import shlex

        remove = f"rm -r {shlex.quote(tree)}"
        refuse(f"{tree} is a symbolic link, or another user may have changed it. Remove it: {remove}")


def unpacked() -> str:
    """Return the folder of this build's modules; unpacks it at the first start."""
    folder = cache_folder()
    tree = os.path.join(folder, f"{TREE}-{target()}")
    try:
        if not os.path.lexists(folder):
            before = os.umask(0o077)
            os.makedirs(folder, exist_ok=True)
            os.umask(before)
        check_private(folder, tree)
        if os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0):
            refuse(
                f"{folder} is on a file system that is mounted noexec: native modules cannot be loaded from "
                "there. Set CLAUDEMESH_CACHE to a folder of your own on another file system."
            )
        if not hold(tree):
            check_libc()
            unpack(folder, tree)
    except OSError as error:
        refuse(
            f"Cannot unpack into {folder} ({error.strerror or error}). "
            "Correct that, or set CLAUDEMESH_CACHE to a folder of your own.",
            CANNOT_CREATE,
        )
    return os.path.join(tree, "site-packages")


def hold(tree: str) -> bool:
    """Whether the tree is complete; if so it is kept from removal for as long as this process runs."""
    import fcntl
    import time

    try:
        marker = os.open(os.path.join(tree, _MARKER), os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(marker, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        # Just being removed: wait for that, and unpack again.
        os.close(marker)
        return False
    except OSError:
        # A file system without locks: then only the 30 days keep a tree from removal.
        pass
    found = os.fstat(marker)
    if not found.st_nlink:
        os.close(marker)
        return False
    _held.append(marker)
    if time.time() - found.st_mtime > _DAY_S:
        mark_used(marker)
    return True


def mark_used(marker: int) -> None:
    """Set the time of last use; on a read-only file system it stays as it is."""
    try:
        os.utime(marker)
    except OSError:
        return


def unpack(folder: str, tree: str) -> None:
    """Let shiv unpack, one process at a time; what a killed or powerless one has left is replaced.

    The marker is written last, after the disk has the rest: a tree with a marker is whole.
    """
    import fcntl
    import shutil

    lock = os.open(os.path.join(folder, ".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    before = os.umask(0o077)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if hold(tree):
            return
        if sys.stderr is not None and sys.stderr.isatty():
            tell(f"unpacking into {folder} (first start)")
        for leftover in (tree, f"{tree}.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        extract(tree)
        os.sync()
        os.close(os.open(os.path.join(tree, _MARKER), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        hold(tree)
        remove_unused(folder)
    finally:
        os.umask(before)
        os.close(lock)


def extract(tree: str) -> None:
    """Unpack this archive's modules for this machine, with byte-code when shiv.toml says so.

    Where the archive has the byte-code of this Python, it takes the place of the sources. Else these are
    compiled.
    """
    import importlib.util
    import json
    import pathlib
    import zipfile

    from _bootstrap import extract_site_packages  # type: ignore[import-not-found]

    with zipfile.ZipFile(sys.argv[0]) as archive:
        compiled = json.loads(archive.read("environment.json"))["compile_pyc"]
        made = f"bytecode/{importlib.util.MAGIC_NUMBER.hex()}"
        has_byte_code = f"{made}.txt" in archive.namelist() and not sys.flags.optimize
        if has_byte_code:
            replaced = {f"site-packages/{name}" for name in archive.read(f"{made}.txt").decode().split("\n")}
            wanted = [entry for entry in archive.infolist() if entry.filename not in replaced]
            archive.infolist = lambda: wanted  # type: ignore[method-assign]
        extract_site_packages(archive, pathlib.Path(tree))
        site = os.path.join(tree, "site-packages")
        if has_byte_code:
            with archive.open(f"{made}.tar.xz") as packed:
                extract_solid(packed, site)
            compiled = False
        helpers = start_compilers(site) if compiled else []
        version, _, platform = target().partition("-")
        with archive.open(f"native/{platform}.tar.xz") as packed:
            extract_solid(packed, site, f"{version}/")
    for helper in helpers:
        os.waitpid(helper, 0)


def start_compilers(site: str) -> list[int]:
    """Compile the modules in processes of their own, one for each core; return their ids.

    They are forked: started from the archive, they would unpack it. They hold the lock on the folder until
    they end, also when this process is killed.
    """
    found: list[tuple[int, str]] = []
    for folder, _, names in os.walk(site):
        if os.path.relpath(folder, site).split(os.sep)[0] not in UNCOMPILED.split():
            paths = (os.path.join(folder, name) for name in names if name.endswith(".py"))
            found += [(os.path.getsize(path), path) for path in paths]
    found.sort(reverse=True)
    helpers: list[int] = []
    count = min(cores(), MOST_COMPILERS)
    for number in range(count):
        share = [path for _, path in found[number::count]]
        try:
            helper = os.fork()
        except OSError:
            # The user may have no more processes.
            compile_all(share)
            continue
        if helper == 0:
            try:
                compile_all(share)
            finally:
                # Without a trace: an interrupt reaches this process too, and is told by the first one.
                os._exit(0)
        helpers.append(helper)
    return helpers


def compile_all(paths: list[str]) -> None:
    """Write the byte-code of modules. A module that cannot be compiled is told by its import."""
    import compileall

    for path in paths:
        compileall.compile_file(path, quiet=2)


def cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def extract_solid(packed: IO[bytes], site: str, within: str = "") -> None:
    """Unpack a solid archive, or one folder of it. Its entries are files; folders are made for them."""
    import shutil
    import tarfile

    try:
        with tarfile.open(fileobj=packed, mode="r|xz") as archive:
            for entry in (entry for entry in archive if entry.name.startswith(within)):
                content = archive.extractfile(entry)
                path = os.path.join(site, entry.name[len(within) :])
                os.makedirs(os.path.dirname(path), exist_ok=True)
                if content is not None:
                    with open(path, "xb") as file:
                        shutil.copyfileobj(content, file)
                    os.chmod(path, entry.mode)
    except tarfile.CompressionError:
        refuse("This Python was built without its module lzma. Start the file with another Python.")


def remove_unused(folder: str) -> None:
    """Remove unpacked trees that no process runs from and that were unused for 30 days; best effort."""
    for name in os.listdir(folder):
        if name.startswith("claudemesh-") and not name.startswith(TREE):
            try:
                remove_if_unused(os.path.join(folder, name))
            except OSError:
                continue


def remove_if_unused(tree: str) -> None:
    """Remove one tree, unless it is young or in use (`OSError`)."""
    import fcntl
    import shutil
    import time

    marker = os.path.join(tree, _MARKER)
    complete = os.path.exists(marker)
    if time.time() - os.lstat(marker if complete else tree).st_mtime < UNUSED_S:
        return
    lock = os.open(marker if complete else tree, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if complete:
            os.unlink(marker)
        shutil.rmtree(tree)
    finally:
        os.close(lock)


def run_from(site: str) -> int:
    """Run the program from its folder, ahead of any other site-packages; the archive is not needed again.

    So a daemon does not notice when its file is replaced by a newer one.
    """
    import importlib

    found = (at for at, path in enumerate(sys.path) if path.endswith(("site-packages", "dist-packages")))
    sys.path.insert(next(found, len(sys.path)), site)
    del sys.path[0]
    module, _, name = ENTRY_POINT.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, SyntaxError, EOFError, ValueError) as error:
        import shlex

        # A cleaner of old files, or a full disk, has taken some of them: the marker is there all the same.
        tree = os.path.dirname(site)
        remove = f"rm -r {shlex.quote(tree)}"
        refuse(
            f"The modules in {tree} are damaged, or this system is older than they need ({error}). "
            f"Remove them, and start again: {remove}"
        )
    code: int = function()
    return code


def main() -> int:
    """Run and return the exit code; 130, silently, when it was interrupted."""
    try:
        return run()
    except KeyboardInterrupt:
        return INTERRUPTED


def run() -> int:
    """Run the fast path, or else the program from its folder."""
    check_target()
    isolate()
    arguments = sys.argv[1:]
    if arguments[:1] == ["send"]:
        # Imported here: it is compiled at each start, and serves no other command.
        import claudemesh_fast  # type: ignore[import-not-found]
        import claudemesh_trust

        code: int | None = claudemesh_fast.run(arguments, claudemesh_trust.distrust)
        if code is not None:
            return code
        # A send that was tried already has its id among the arguments now, so that nothing is sent twice.
        sys.argv[1:] = arguments
    return run_from(unpacked())
