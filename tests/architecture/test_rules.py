"""Rules of the house that a reader would otherwise have to remember."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.support.parsed import nodes

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "claudemesh"
MODULES = {path.relative_to(ROOT).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
# Which Python runs the statements of which file, and by which name.
QUERIES = {
    "daemon/sql/files.sql": ("daemon/files", "_Q"),
    "daemon/sql/outbox.sql": ("daemon/outbox", "_Q"),
    "daemon/sql/inbox.sql": ("daemon/inbox", "_Q"),
    "daemon/sql/sessions.sql": ("daemon/sessions", "_Q"),
    "broker/store/sqlite/queries.sql": ("broker/store/sqlite", "_Q"),
    "broker/store/postgres/queries.sql": ("broker/store/postgres", "_Q"),
    "broker/store/sqlite/blobs.sql": ("broker/store/sqlite", "_B"),
    "broker/store/postgres/blobs.sql": ("broker/store/postgres", "_B"),
}
_HEADER = re.compile(r"^-- ([a-z][a-z0-9_]*): \S", re.MULTILINE)
_URL_HOST = re.compile(r"\b(?:https?|wss?)://(?:[^\s/@\"'`<>]*@)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]+)")
_EXAMPLES = ("example", "example.com", "example.net", "example.org", "invalid", "lan", "localhost", "test")
_CITED = {"cyclonedx.org", "github.com", "json-schema.org", "mozilla.org", "www.apache.org", "www.w3.org"}


def calls(path: Path) -> set[str]:
    """The last part of every name that is called in a module."""
    names = set()
    for node in nodes(path.read_text()):
        if isinstance(node, ast.Call):
            function = node.func
            names.add(function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", ""))
    return names


def test_tasks_are_made_in_one_module_only() -> None:
    """Every task has an owner: create_task stands in runtime/services.py alone."""
    makers = {"create_task", "ensure_future", "TaskGroup", "run_coroutine_threadsafe"}
    found = {name: calls(path) & makers for name, path in MODULES.items()}
    assert {name: made for name, made in found.items() if made} == {
        "claudemesh/runtime/services.py": {"create_task"}
    }


def test_no_wait_loses_a_cancellation() -> None:
    """`wait_for` of Python 3.11 does, when what it waits for ends at the same moment: `timeout` does not."""
    assert [name for name, path in MODULES.items() if "asyncio.wait_for" in path.read_text()] == []


def test_every_queue_has_a_bound() -> None:
    """A queue without a limit fails."""
    unbounded = [
        (name, node.lineno)
        for name, path in MODULES.items()
        for node in nodes(path.read_text())
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"}
        and not node.args
        and not node.keywords
    ]
    assert unbounded == []


def test_nothing_dangerous_is_called() -> None:
    """No eval, pickle, yaml, shell or guessable temporary file."""
    imported = {
        (name, alias.name)
        for name, path in MODULES.items()
        for node in nodes(path.read_text())
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert {pair for pair in imported if pair[1] in {"pickle", "marshal", "shelve", "yaml"}} == set()
    banned = {"eval", "exec", "mktemp", "popen"}
    assert {name: made for name, path in MODULES.items() if (made := calls(path) & banned)} == {}


WIRING = (
    "broker/background.py",
    "broker/context.py",
    "broker/startup.py",
    "cli/process.py",
    "daemon/assembly.py",
    "daemon/broker_session.py",
    "daemon/startup.py",
    "daemon/storage_monitor.py",
)


@pytest.mark.parametrize("module", WIRING)
def test_parts_are_whole_when_they_are_made(module: str) -> None:
    """The modules that put parts together pass arguments and subscribe; they set no field of a part."""
    fields = [
        ast.unparse(node)
        for node in nodes((PACKAGE / module).read_text())
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    ]
    assert [field for field in fields if not re.fullmatch(r"self\.\w+", field)] == []


def test_no_test_patches_a_constant_of_the_package() -> None:
    """A deadline or bound that a test changes is an argument or a setting."""
    found = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for node in nodes(path.read_text()):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("setattr", "setitem"):
                named = " ".join(ast.literal_eval(part) for part in node.args if _is_text(part))
                if re.search(r"(?:^|[ .])_?[A-Z][A-Z0-9_]+$", named):
                    found.append((path.relative_to(ROOT).as_posix(), named))
    assert [one for one in found if not one[0].startswith("tests/artefact/")] == []


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_build_is_no_package() -> None:
    """`build` holds scripts; as a package it would shadow the packaging tool of that name."""
    assert not (ROOT / "build" / "__init__.py").exists()


def test_build_is_not_hidden_from_git() -> None:
    """The usual ignore rules would hide build/."""
    done = subprocess.run(["git", "check-ignore", "build/env", "build/mesh"], cwd=ROOT, capture_output=True)
    assert done.stdout == b""


@pytest.mark.parametrize("script", ["build/mesh", "build/pyz", "build/test", ".ci/run"])
def test_scripts_can_be_run(script: str) -> None:
    """A stranger calls them by their path."""
    path = ROOT / script
    assert path.stat().st_mode & 0o111 == 0o111
    assert path.read_text().startswith("#!/usr/bin/env bash\n")


def test_ci_runs_the_test_command() -> None:
    """CI runs the same command as a developer."""
    assert "./build/test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("sql", sorted(QUERIES))
def test_every_query_is_used_and_every_used_query_exists(sql: str) -> None:
    """An unused statement is dead code; a name without a statement is a crash."""
    defined = set(_HEADER.findall((PACKAGE / sql).read_text()))
    named, subscripts = set(), set()
    folder, mapping = QUERIES[sql]
    shared = [PACKAGE / "broker" / "store" / "decisions.py"] if sql.startswith("broker/") else []
    for path in [*(PACKAGE / folder).glob("*.py"), *shared]:
        for node in nodes(path.read_text()):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named.add(node.value)
            if (
                isinstance(node, ast.Subscript)
                and isinstance(node.value, ast.Name)
                and node.value.id == mapping
                and isinstance(node.slice, ast.Constant)
            ):
                subscripts.add(node.slice.value)
    assert defined
    assert defined - named == set()
    assert subscripts - defined == set()


def test_every_query_file_is_checked() -> None:
    """A new file of queries joins the table above."""
    files = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.sql")}
    assert {name for name in files if not re.search(r"/\d{4}_|/functions/", name)} == set(QUERIES)


def test_sql_is_not_put_together_from_strings() -> None:
    """SQL stands in .sql files. Only what a reader may filter by is composed, of words that are all ours."""
    composing = {
        "claudemesh/client/recovering.py",
        "claudemesh/daemon/inbox/selection.py",
        "claudemesh/daemon/outbox/rows.py",
    }
    statement = re.compile(r"\s*(SELECT .* FROM|INSERT INTO|UPDATE .* SET|DELETE FROM)\b", re.DOTALL)
    found = {
        name
        for name, path in MODULES.items()
        for node in nodes(path.read_text())
        if isinstance(node, ast.JoinedStr)
        and isinstance(node.values[0], ast.Constant)
        and statement.match(str(node.values[0].value))
    }
    assert found == composing


def tracked() -> list[Path]:
    """Every file that git knows or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [ROOT / line for line in listed.stdout.splitlines()]
    return [path for path in paths if path.is_file()]


def foreign_hosts(text: str) -> set[str]:
    """The hosts of a text's URLs that are no address, no single label, no name for examples and not cited."""
    hosts = {host.strip(".").lower() for host in _URL_HOST.findall(text)}
    return {
        host
        for host in hosts - _CITED
        if "." in host
        and not re.fullmatch(r"[0-9.]+", host)
        and not any(host == name or host.endswith(f".{name}") for name in _EXAMPLES)
    }


def test_a_url_in_a_file_leads_to_an_example_or_to_a_host_that_is_cited() -> None:
    """Package indexes and services are settings of a machine."""
    sample = "https://packages.acme.io/simple wss://mesh.example.com http://127.0.0.1:7900 http://[::1]:1 http://bob/"
    assert foreign_hosts(sample) == {"packages.acme.io"}
    found = {
        path.relative_to(ROOT).as_posix(): hosts
        for path in tracked()
        if path != Path(__file__) and (hosts := foreign_hosts(path.read_text(errors="replace")))
    }
    assert found == {}


def test_no_file_names_a_package_index_or_a_place_on_one_machine() -> None:
    """Packages come from the index of the machine, and the checkout lies anywhere."""
    options = [f"--{name}" for name in ("index-url", "extra-index-url", "find-links")]
    found = [
        (path.relative_to(ROOT).as_posix(), word)
        for path in tracked()
        for word in [f"{ROOT}/", *options]
        if word in path.read_text(errors="replace")
    ]
    assert found == []


def test_every_folder_of_tests_is_run() -> None:
    """The order of the folders is written down, so each of them is."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = config["tool"]["pytest"]["ini_options"]["testpaths"]
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    assert len(set(listed)) == len(listed)
    assert {"/".join(folder.split("/")[:2]) for folder in folders} == set(listed)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_requirements_are_pinned_with_hashes(name: str) -> None:
    """Each requirement is one version, and each of its files is known by its hash."""
    text = (ROOT / "build" / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    pinned = re.compile(r"[a-z0-9.-]+(\[[a-z,]+\])?==[^ ]+( ;[^-]*)?( +--hash=sha256:[0-9a-f]{64})+ *")
    assert [line for line in lines if not pinned.fullmatch(line)] == []
    assert len(lines) > 10


def test_what_is_built_is_what_is_tested() -> None:
    """Every runtime pin stands in the development pins with the same version."""
    pin = re.compile(r"^([a-z0-9.-]+)==(\S+)", re.MULTILINE)
    run, dev = (
        dict(pin.findall((ROOT / "build" / name).read_text()))
        for name in ("requirements.txt", "requirements-dev.txt")
    )
    assert run.items() <= dev.items()
