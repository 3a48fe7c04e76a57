"""The zipapp's first code: checks where it runs, serves what is in a hurry, then lets shiv unpack and run.

Standard library only, and little of it: every start of every command passes here.
"""

import os
import sys

TARGET = "@TARGET@"


def stop(message):
    """End with one sentence; 78 is a wrong configuration."""
    sys.stderr.write("claudemesh: error: " + message + "\n")
    sys.exit(78)


def check_target():
    """The wheels inside are native: for one Python version on one kind of machine."""
    here = "%d.%d %s %s" % (*sys.version_info[:2], sys.platform, os.uname().machine)
    if here != TARGET:
        stop(
            "this file was built for Python %s and this is %s: run it with that Python, or build it here."
            % (TARGET, here)
        )


def harden():
    """Nothing from the current folder or from PYTHONPATH may take a module's place."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    own = sys.path[0]
    sys.path[1:] = [path for path in sys.path[1:] if path and path not in given]
    sys.path[0] = own
    for name in list(os.environ):
        if name.startswith("SHIV_"):
            del os.environ[name]


def cache_folder():
    """Return where the archive is unpacked: per user, 0700, made here if need be."""
    chosen = os.environ.get("CLAUDEMESH_CACHE")
    if not chosen:
        base = os.environ.get("XDG_CACHE_HOME")
        if not base:
            home = os.environ.get("HOME")
            if not home:
                stop("there is no HOME to unpack into: set CLAUDEMESH_CACHE to a folder of your own.")
            base = os.path.join(home, ".cache")
        chosen = os.path.join(base, "claudemesh")
    return os.path.abspath(chosen)


def check_folder(path):
    """Refuse a folder that somebody else could put code into."""
    found = os.lstat(path)
    if (found.st_mode & 0o170000) != 0o040000:
        stop("%s is not a folder: move it away, or set CLAUDEMESH_CACHE." % path)
    if found.st_uid != os.geteuid():
        stop("%s belongs to another user: set CLAUDEMESH_CACHE to a folder of your own." % path)
    if found.st_mode & 0o022:
        stop("others can write to %s: run chmod 700 %s" % (path, path))


def prepare_cache():
    """Make and check the cache; True when this build is not unpacked there yet."""
    folder = cache_folder()
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        check_folder(folder)
        entries = os.listdir(folder)
    except OSError as error:
        stop("cannot use %s (%s): set CLAUDEMESH_CACHE to a folder of your own." % (folder, error.strerror))
    for entry in entries:
        if not entry.startswith("."):
            check_folder(os.path.join(folder, entry))
    os.environ["SHIV_ROOT"] = folder
    return not entries


def main():
    """Run."""
    check_target()
    harden()
    import claudemesh_fast

    code = claudemesh_fast.run(sys.argv[1:])
    if code is not None:
        sys.exit(code)
    if prepare_cache() and sys.stderr.isatty():
        sys.stderr.write("claudemesh: unpacking, at the first start only\n")
    # What is unpacked, and what the commands write, is for this user alone.
    os.umask(0o077)
    import _bootstrap

    _bootstrap.bootstrap()


main()
