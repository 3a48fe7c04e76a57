"""The archive starts anywhere, and runs no code of another user."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import claudemesh
from targets import this
from tests.support.processes import until
from tests.support.pyz import BARE_PYTHON, bare_environment, byte_code, module_files, pythons, start, trees

_DAY_S = 86_400
OLD_PYTHONS = [path for version, path in pythons().items() if version < (3, 11)]


def version(pyz: Path, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """`version --json` in an empty folder."""
    empty = home.parent / "empty"
    empty.mkdir(exist_ok=True)
    return start(pyz, "version", "--json", cwd=empty, environment=bare_environment(home, **more))


def assert_works(done: subprocess.CompletedProcess[str]) -> None:
    """It said its version, and nothing else."""
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["version"] == claudemesh.__version__


def assert_refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One sentence that helps, exit code 78, no traceback."""
    assert done.returncode == 78
    assert done.stdout == ""
    assert done.stderr.startswith("claudemesh: error: ")
    assert done.stderr.count("\n") == 1
    assert [word for word in words if word not in done.stderr] == []


def test_starts_in_an_empty_folder_with_an_empty_home(pyz: Path, home: Path) -> None:
    """Nothing else is installed but Python; the folder stays as it was."""
    assert_works(version(pyz, home))
    assert list((home.parent / "empty").iterdir()) == []
    assert [path.name for path in home.iterdir()] == [".cache"]


def test_starts_by_its_shebang(pyz: Path, home: Path) -> None:
    """The file can be run as it is, copied under another name, through a link."""
    (home / "bin").mkdir()
    (home / "bin" / "python3").symlink_to(BARE_PYTHON)
    copy = shutil.copy(pyz, home / "claudemesh")
    (home / "link").symlink_to(copy)
    environment = bare_environment(home, PATH=f"{home / 'bin'}:{os.defpath}")
    for name in ("claudemesh", "link"):
        done = subprocess.run(
            [str(home / name), "version", "--json"], env=environment, capture_output=True, text=True
        )
        assert_works(done)
    assert len(trees(home / ".cache" / "claudemesh")) == 1


def test_only_the_first_start_unpacks(pyz: Path, home: Path, cache: Path) -> None:
    """Later ones read what is there."""
    assert_works(version(pyz, home))
    [tree] = trees(cache)
    before = tree.stat().st_ino, (tree / "site-packages").stat().st_mtime_ns
    assert_works(version(pyz, home))
    assert before == (tree.stat().st_ino, (tree / "site-packages").stat().st_mtime_ns)


def test_cache_is_for_this_user_alone_whatever_the_umask(pyz: Path, home: Path, cache: Path) -> None:
    """0700 folders, and nothing in them that others can write to."""
    done = start(pyz, "version", cwd=home, environment=bare_environment(home), umask=0)
    assert done.returncode == 0
    for folder in (cache.parent, cache, *trees(cache)):
        assert folder.stat().st_mode & 0o777 == 0o700, folder
    assert [path for path in cache.rglob("*") if path.stat().st_mode & 0o022] == []


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"CLAUDEMESH_CACHE": "{}/chosen"}, "chosen"),
        ({"XDG_CACHE_HOME": "{}/xdg"}, "xdg/claudemesh"),
        ({"XDG_CACHE_HOME": "relative"}, "home/.cache/claudemesh"),
        ({}, "home/.cache/claudemesh"),
    ],
)
def test_cache_is_where_the_user_says(pyz: Path, home: Path, variables: dict[str, str], place: str) -> None:
    """$CLAUDEMESH_CACHE, else the user's cache folder."""
    filled = {name: value.format(home.parent) for name, value in variables.items()}
    assert_works(version(pyz, home, **filled))
    assert len(trees(home.parent / place)) == 1


def test_a_cache_that_others_can_write_to_is_refused(pyz: Path, home: Path, cache: Path) -> None:
    """Another user may have put code there. The error names the command that corrects it, and the command
    works."""
    for mode in (0o770, 0o707):
        cache.mkdir(parents=True, exist_ok=True)
        cache.chmod(mode)
        assert_refused(version(pyz, home), str(cache), f"chmod 700 {cache}")
    assert trees(cache) == []
    cache.chmod(0o700)
    assert_works(version(pyz, home))


def test_a_tree_that_others_can_write_to_is_refused(pyz: Path, home: Path, cache: Path) -> None:
    """Its modules are not to be trusted any more: it has to go."""
    assert_works(version(pyz, home))
    [tree] = trees(cache)
    tree.chmod(0o720)
    assert_refused(version(pyz, home), f"rm -r {tree}")
    shutil.rmtree(tree)
    assert_works(version(pyz, home))


def test_a_symbolic_link_is_refused(pyz: Path, home: Path, cache: Path) -> None:
    """In the place of the cache or of the unpacked tree."""
    assert_works(version(pyz, home))
    [tree] = trees(cache)
    moved = tree.rename(home / "elsewhere")
    tree.symlink_to(moved)
    assert_refused(version(pyz, home), str(tree), "symbolic link")
    shutil.rmtree(cache)
    (home / "target").mkdir(mode=0o700)
    cache.symlink_to(home / "target")
    assert_refused(version(pyz, home), str(cache), "symbolic link")


def test_a_folder_of_another_user_is_refused(pyz: Path, home: Path) -> None:
    """The owner of a folder can change its content."""
    foreign = Path("/usr")
    if os.geteuid() == 0:
        foreign = home / "foreign"
        foreign.mkdir(mode=0o700)
        os.chown(foreign, 12_345, 12_345)
    assert_refused(version(pyz, home, CLAUDEMESH_CACHE=str(foreign)), str(foreign), "another user")


def test_a_parent_that_everybody_can_write_to_is_refused(pyz: Path, home: Path) -> None:
    """They could put another folder in its place; with the sticky bit they cannot."""
    shared = home / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    assert_refused(version(pyz, home, CLAUDEMESH_CACHE=str(shared / "cache")), str(shared))
    shared.chmod(0o1777)
    assert_works(version(pyz, home, CLAUDEMESH_CACHE=str(shared / "cache")))


def test_without_a_home_it_says_what_to_set(pyz: Path, home: Path) -> None:
    """No guess at a shared folder."""
    environment = bare_environment(home)
    del environment["HOME"]
    done = start(pyz, "version", cwd=home, environment=environment)
    assert_refused(done, "HOME", "CLAUDEMESH_CACHE")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-", "2>/dev/full"])
def test_the_first_start_needs_no_standard_stream(closed: str, pyz: Path, home: Path, tmp_path: Path) -> None:
    """A closed one counts as /dev/null, also where the first line of the file was left out."""
    cache = tmp_path / "cache"
    for command in ("version", "no-such-command"):
        line = f'exec "$0" "$1" {command} {closed}'
        done = subprocess.run(
            ["/bin/sh", "-c", line, BARE_PYTHON, str(pyz)],
            env=bare_environment(home, CLAUDEMESH_CACHE=str(cache)),
            capture_output=True,
            text=True,
        )
        assert (done.returncode, "Traceback" in done.stderr) == (0 if command == "version" else 64, False)


def test_a_refused_start_has_its_exit_code_without_a_stream_for_the_sentence(pyz: Path, home: Path) -> None:
    """The number is all that a service manager sees."""
    environment = bare_environment(home)
    del environment["HOME"]
    for python in [BARE_PYTHON, *OLD_PYTHONS]:
        command = ["/bin/sh", "-c", 'exec "$0" "$1" version 2>&-', str(python), str(pyz)]
        assert subprocess.run(command, env=environment, capture_output=True).returncode == 78


def test_a_place_that_cannot_be_written_is_named(pyz: Path, home: Path) -> None:
    """Exit code 73, cannot create."""
    (home / "file").write_text("")
    done = version(pyz, home, CLAUDEMESH_CACHE=str(home / "file" / "cache"))
    assert done.returncode == 73
    assert str(home / "file" / "cache") in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_python_that_the_file_has_no_modules_for_is_refused_in_one_sentence(pyz: Path, home: Path) -> None:
    """The native modules are those of the targets that it was built for."""
    other = home / "other.pyz"
    here = this()
    with zipfile.ZipFile(pyz) as archive, zipfile.ZipFile(other, "w") as changed:
        launcher = archive.read("claudemesh_launcher.py").decode()
        assert f'TARGETS = "{here.name}"' in launcher
        changed.writestr("__main__.py", archive.read("__main__.py"))
        changed.writestr("claudemesh_launcher.py", launcher.replace(f'"{here.name}"', '"cp399-linux-x86_64"'))
    assert_refused(version(other, home), here.name, str(here), "pip install", "CLAUDEMESH_PYTHON")


@pytest.mark.skipif(not OLD_PYTHONS, reason="no Python older than 3.11 is installed here")
def test_a_python_that_is_too_old_is_refused_in_one_sentence(pyz: Path, home: Path) -> None:
    """It cannot read the launcher."""
    for python in OLD_PYTHONS:
        done = subprocess.run(
            [python, str(pyz), "version"], env=bare_environment(home), capture_output=True, text=True
        )
        assert_refused(done, str(this()), "Start it with one of these: python{}.{} ".format(*this().version))


def test_a_cache_that_is_mounted_noexec_is_refused_in_one_sentence(pyz: Path, home: Path) -> None:
    """Native modules cannot be loaded from there."""
    (home / "cache").mkdir(mode=0o700)
    command = f'mount -t tmpfs -o noexec,mode=0700 none "{home}/cache" && exec "$@"'
    namespace = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    done = subprocess.run(
        [*namespace, "sh", "-c", command, "sh", BARE_PYTHON, str(pyz), "version"],
        env=bare_environment(home, CLAUDEMESH_CACHE=str(home / "cache")),
        capture_output=True,
        text=True,
    )
    assert_refused(done, "noexec", "CLAUDEMESH_CACHE")


def test_five_first_starts_at_once_do_no_harm(pyz: Path, home: Path, cache: Path) -> None:
    """One unpacks, the others wait for it."""
    with ThreadPoolExecutor(5) as pool:
        for done in pool.map(lambda _: version(pyz, home), range(5)):
            assert_works(done)
    [tree] = trees(cache)
    assert_whole(pyz, tree)


def assert_whole(pyz: Path, tree: Path) -> None:
    """Every file of the archive is there, of its size."""
    site = tree / "site-packages"
    assert {name: (site / name).stat().st_size for name in module_files(pyz)} == module_files(pyz)


def test_the_first_start_compiles_nothing_where_the_file_carries_byte_code(
    pyz: Path, home: Path, cache: Path
) -> None:
    """It stands in the place of the sources. A file that is given to users is there as text."""
    assert_works(version(pyz, home))
    [tree] = trees(cache)
    site = tree / "site-packages"
    carried = byte_code(pyz)
    assert len(carried) > 500
    assert {str(path.relative_to(site)) for path in site.rglob("*.pyc")} == set(carried)
    assert [name for name, data in carried.items() if (site / name).read_bytes() != data] == []
    assert [path.name for path in (site / "claudemesh").rglob("*.py")] == ["sdk.py"]
    done = start(pyz, "sdk", "python", cwd=home, environment=bare_environment(home))
    assert (done.returncode, "class Daemon" in done.stdout) == (0, True)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from claudemesh.cli.main import main\nprint(main.__code__.co_filename)"
    )
    command = [BARE_PYTHON, "-IS", "-c", code, str(site)]
    assert subprocess.check_output(command, text=True).strip() == (
        "claudemesh.pyz/site-packages/claudemesh/cli/main.py"
    )


def test_the_first_start_compiles_where_the_byte_code_is_of_another_python(
    pyz: Path, home: Path, cache: Path
) -> None:
    """An interpreter reads byte-code of its own magic number alone."""
    other = home / "other.pyz"
    with zipfile.ZipFile(pyz) as archive, zipfile.ZipFile(other, "w") as changed:
        for name in archive.namelist():
            changed.writestr(re.sub(r"^bytecode/[0-9a-f]+", "bytecode/00000000", name), archive.read(name))
    assert_works(version(other, home))
    [tree] = trees(cache)
    made = [path.read_bytes()[:8] for path in (tree / "site-packages" / "claudemesh").rglob("*.pyc")]
    assert set(made) == {importlib.util.MAGIC_NUMBER + bytes(4)}
    assert len(made) > 200


def test_a_start_killed_while_unpacking_is_healed_by_the_next(pyz: Path, home: Path, cache: Path) -> None:
    """The partial tree is replaced."""
    # On a busy machine it may have finished before the signal arrives: then once more.
    while not cache.exists() or list(cache.rglob(".complete")):
        shutil.rmtree(cache, ignore_errors=True)
        killed = subprocess.Popen(
            [BARE_PYTHON, str(pyz), "version"], env=bare_environment(home), stdout=subprocess.DEVNULL
        )
        until(lambda: cache.exists() and len(list(cache.rglob("*.py*"))) > 20, "it is unpacking")
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    assert list(cache.rglob("*.py*"))
    assert_works(version(pyz, home))
    [tree] = trees(cache)
    assert_whole(pyz, tree)


def test_a_tree_torn_by_a_power_loss_is_replaced(pyz: Path, home: Path, cache: Path) -> None:
    """Its last file is missing, so its others are not believed either."""
    assert_works(version(pyz, home))
    [tree] = trees(cache)
    (tree / ".complete").unlink()
    (tree / "site-packages" / "claudemesh" / "__init__.pyc").write_text("")
    assert_works(version(pyz, home))
    assert_whole(pyz, tree)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
def test_a_tree_that_has_lost_modules_is_refused_in_one_sentence(
    pyz: Path, home: Path, cache: Path, damage: str
) -> None:
    """A cleaner of old files may take some of them. The command that it names mends it."""
    assert_works(version(pyz, home))
    [tree] = trees(cache)
    module = tree / "site-packages" / "claudemesh" / "cli" / "main.pyc"
    if damage == "missing":
        module.unlink()
    else:
        module.write_bytes(b"" if damage == "empty" else module.read_bytes()[:1000])
    assert_refused(version(pyz, home), f"rm -r {tree}")
    shutil.rmtree(tree)
    assert_works(version(pyz, home))


def poison(folder: Path) -> None:
    """Modules that end the program when they are imported, under names that it uses."""
    # compileall stands for the standard library; a machine's own start-up hooks may import more common ones.
    names = (
        "claudemesh",
        "claudemesh_fast",
        "claudemesh_trust",
        "_bootstrap",
        "click",
        "orjson",
        "compileall",
    )
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.py").write_text("import os\nos._exit(99)\n")


def test_modules_in_the_current_folder_shadow_none_of_ours(pyz: Path, home: Path) -> None:
    """Neither at the first start nor later, neither by an empty entry of PYTHONPATH nor by its name."""
    poison(home.parent / "empty")
    for path in ("", ":", ".", str(home.parent / "empty")):
        assert_works(version(pyz, home, PYTHONPATH=path))


def test_a_start_without_the_first_line_isolates_itself(pyz: Path, home: Path) -> None:
    """`python3 claudemesh.pyz`: without the user's site-packages and PYTHONPATH, with the same arguments."""
    site = home / ".local" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    poison(home / "poison")
    site.mkdir(parents=True)
    # Runs ahead of the archive's first line in the first process, and not at all in the second.
    (site / "note.pth").write_text("import sys; open('started', 'a').write('x'); sys.noted = True\n")
    for name in ("click", "orjson", "compileall"):
        (site / f"{name}.py").write_text("import os\nos._exit(99)\n")
    environment = bare_environment(
        home, PYTHONUSERBASE=str(home / ".local"), PYTHONPATH=str(home / "poison"), PYTHONSTARTUP="/no"
    )
    for _ in range(2):
        done = start(pyz, "version", "--json", cwd=home, environment=environment)
        assert_works(done)
    assert (home / "started").read_text() == "xx"
    odd = start(pyz, "send", "nobody", "two  words", "--mesh", "*", cwd=home, environment=environment)
    assert (odd.returncode, "'*'" in odd.stderr) == (78, True)


def test_start_up_hooks_of_the_user_do_not_run_in_the_file(pyz: Path, home: Path) -> None:
    """Its first line isolates Python: no sitecustomize, usercustomize or .pth file runs ahead of it."""
    (home / "bin").mkdir()
    (home / "bin" / "python3").symlink_to(BARE_PYTHON)
    user_site = (
        home / ".local" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    )
    user_site.mkdir(parents=True)
    for folder in (user_site, home / "poison"):
        folder.mkdir(exist_ok=True)
        for name in ("sitecustomize", "usercustomize"):
            (folder / f"{name}.py").write_text("import os\nos._exit(99)\n")
        (folder / "poison.pth").write_text("import os; os._exit(99)\n")
    environment = bare_environment(
        home,
        PATH=f"{home / 'bin'}:{os.defpath}",
        PYTHONPATH=str(home / "poison"),
        PYTHONUSERBASE=str(home / ".local"),
    )
    for _ in range(2):
        assert_works(
            subprocess.run([str(pyz), "version", "--json"], env=environment, capture_output=True, text=True)
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("foreign", ["home", "cache"])
def test_root_runs_no_code_from_below_another_users_folder(
    pyz: Path, home: Path, cache: Path, foreign: str
) -> None:
    """Root with the HOME of another user: the owner of a folder on the way can replace the content below
    it."""
    cache.mkdir(parents=True, mode=0o700)
    os.chown({"home": home, "cache": cache.parent}[foreign], 65534, 65534)
    assert_refused(version(pyz, home), "belongs to another user", "CLAUDEMESH_CACHE")
    assert trees(cache) == []


def test_python_path_is_kept_when_asked_for(pyz: Path, home: Path) -> None:
    """For who debugs: then what stands there does come first."""
    assert_works(version(pyz, home))
    poison(home / "poison")
    asked = {"PYTHONPATH": str(home / "poison"), "CLAUDEMESH_KEEP_PYTHONPATH": "1"}
    assert version(pyz, home, **asked).returncode == 99


def test_inherited_settings_of_shiv_change_nothing(pyz: Path, home: Path, cache: Path) -> None:
    """They could send it to other code."""
    poison(home / "poison")
    settings = {
        "SHIV_ROOT": str(home / "poison"),
        "SHIV_ENTRY_POINT": "os:abort",
        "SHIV_MODULE": "os:abort",
        "SHIV_CONSOLE_SCRIPT": "poison",
        "SHIV_INTERPRETER": "1",
        "SHIV_PREPEND_PYTHONPATH": str(home / "poison"),
    }
    for _ in range(2):
        assert_works(version(pyz, home, **settings))
    assert len(trees(cache)) == 1


def test_trees_unused_for_30_days_are_removed_unless_something_runs_from_them(
    pyz: Path, home: Path, cache: Path
) -> None:
    """A daemon of an older version imports from its tree for as long as it runs."""
    long_ago = time.time() - 31 * _DAY_S
    for name in ("claudemesh-unused", "claudemesh-running", "claudemesh-torn", "claudemesh-young", "other"):
        (cache / name).mkdir(parents=True)
        marker = cache / name / ".complete"
        if name != "claudemesh-torn":
            marker.write_text("")
            os.utime(marker, None if name == "claudemesh-young" else (long_ago, long_ago))
        os.utime(cache / name, (long_ago, long_ago))
    cache.chmod(0o700)
    with (cache / "claudemesh-running" / ".complete").open() as running:
        fcntl.flock(running, fcntl.LOCK_SH)
        assert_works(version(pyz, home))
    kept = {path.name for path in trees(cache)}
    assert {"claudemesh-running", "claudemesh-young", "other"} <= kept
    assert kept & {"claudemesh-unused", "claudemesh-torn"} == set()


def test_a_running_process_holds_its_tree_and_marks_it_as_used(pyz: Path, home: Path, cache: Path) -> None:
    """The rule of the test above depends on it."""
    assert_works(version(pyz, home))
    [tree] = trees(cache)
    marker = tree / ".complete"
    os.utime(marker, (0, 0))
    # It waits for its standard input, and so it runs.
    waiting = subprocess.Popen(
        [BARE_PYTHON, str(pyz), "send", "nobody", "-"],
        env=bare_environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def is_held() -> bool:
        with marker.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    until(is_held, "the tree is held")
    until(lambda: marker.stat().st_mtime > time.time() - _DAY_S, "the tree is marked as used")
    waiting.communicate(b"text")
    assert not is_held()


def test_unpacking_is_announced_on_a_terminal_only(pyz: Path, home: Path) -> None:
    """Scripts read stderr too; people wait for a second and want to know why."""
    ours, theirs = pty.openpty()
    command = [BARE_PYTHON, str(pyz), "version"]
    for expected in (b"first start", b""):
        subprocess.run(
            command, env=bare_environment(home), stdout=subprocess.DEVNULL, stderr=theirs, check=True
        )
        os.set_blocking(ours, False)
        try:
            said = os.read(ours, 4096)
        except BlockingIOError:
            said = b""
        assert expected in said
        assert bool(said) == bool(expected)
    os.close(ours)
    os.close(theirs)


def test_the_unpacked_libraries_show_a_table(pyz: Path, home: Path, cache: Path) -> None:
    """Parts of a library that the archive leaves out are not missed."""
    assert start(pyz, "version", cwd=home, environment=bare_environment(home)).returncode == 0
    [tree] = trees(cache)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from rich.console import Console\nfrom rich.table import Table\n"
        "table = Table('NAME', 'AGE')\ntable.add_row('\u9280\u884c', '3 s')\nConsole(width=40).print(table)\n"
        "import segno; segno.make('claudemesh://join/x').terminal()"
    )
    done = subprocess.run(
        [BARE_PYTHON, "-IS", "-c", code, str(tree / "site-packages")],
        env={**bare_environment(home), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\u9280\u884c" in done.stdout
