"""`config check` and `config show`, of a daemon and of a broker: as commands, with a daemon and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cli import Ran, homes, run
from tests.support.processes import Mesh

OK, USAGE, CONFIGURATION = 0, 64, 78
SECRET = "hush-hush-hush-hush"


def rows(ran: Ran) -> dict[str, list[str]]:
    """The cells of each line after the first cell."""
    cells = [line.split("\t") for line in ran.out.splitlines()]
    return {row[0]: row[1:] for row in cells}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the settings of one mesh, and of a broker."""
    folder = tmp_path / "daemon" / "team"
    (folder / "hooks").mkdir(parents=True)
    (tmp_path / "broker").mkdir()
    (folder / "membership.json").write_text("{}")
    for path in (tmp_path, tmp_path / "daemon", folder, folder / "hooks", tmp_path / "broker"):
        path.chmod(0o700)
    return tmp_path


def test_check_passes_files_without_a_fault(home: Path) -> None:
    folder = home / "daemon" / "team"
    (folder / "config.toml").write_text("[ipc]\nhttp_port = 1\n")
    done = run(home, "config", "check")
    assert (done.code, done.err) == (OK, "")
    assert done.out.splitlines() == [
        f"{folder / 'config.toml'}: ok",
        f"{folder / 'hooks' / 'hooks.toml'}: ok (no file)",
        f"{home / 'fleet.toml'}: ok (no file)",
        f"{home / 'broker' / 'broker.toml'}: ok (no file)",
    ]
    assert [item["exists"] for item in run(home, "config", "check", "--json").json["items"]] == [
        True,
        False,
        False,
        False,
    ]


def test_check_lists_every_fault_of_all_files(home: Path) -> None:
    folder = home / "daemon" / "team"
    (folder / "config.toml").write_text("[ipc]\nhttp_prt = 1\n[outbox]\nmax_age_hours_cap = 0\n")
    (folder / "hooks" / "hooks.toml").write_text("[on-dm]\ntimeout_s = 0\n")
    (home / "broker" / "broker.toml").write_text(f'redis_ul = "{SECRET}"\ndatabase_url = "{SECRET}"\n')
    done = run(home, "config", "check")
    assert done.code == CONFIGURATION
    expected = [
        "config.toml:2: There is no key [ipc] http_prt. Did you mean http_port?",
        "config.toml:4: [outbox] max_age_hours_cap must be a whole number from 1 to 87840, not 0.",
        "hooks.toml:2: [on-dm] timeout_s must be a number from 0.1 to 3600, not 0.",
        "broker.toml:1: There is no key redis_ul. Did you mean redis_url?",
        "broker.toml:2: database_url must be a URL such as postgresql://user@host:5432/database. "
        "The URL does not begin with postgresql:// or postgres://.",
    ]
    lines = done.err.splitlines()
    assert len(lines) == len(expected)
    assert all(line.endswith(sentence) for line, sentence in zip(lines, expected, strict=True))
    assert SECRET not in done.err
    found = run(home, "config", "check", "--json")
    assert found.code == CONFIGURATION
    assert [[fault["line"] for fault in item["faults"]] for item in found.json["items"]] == [
        [2, 4],
        [2],
        [],
        [1, 2],
    ]
    assert SECRET not in found.out


def test_check_names_a_file_that_is_not_toml_or_not_safe(home: Path) -> None:
    folder = home / "daemon" / "team"
    (folder / "config.toml").write_text("[ipc")
    (folder / "hooks" / "hooks.toml").write_text("")
    (folder / "hooks" / "hooks.toml").chmod(0o666)
    done = run(home, "config", "check")
    assert (done.code, "is not TOML" in done.err, "chmod 600" in done.err) == (CONFIGURATION, True, True)


@pytest.mark.parametrize(
    ("name", "kind", "text", "code"),
    [
        ("config.toml", [], "[ipc]\nhttp_port = 1\n", OK),
        ("hooks.toml", [], "[ipc]\nhttp_port = 1\n", CONFIGURATION),
        ("x.toml", ["--kind", "broker"], "listen = '127.0.0.1:1'\n", OK),
        ("x.toml", ["--kind", "config"], "listen = '127.0.0.1:1'\n", CONFIGURATION),
        ("x.toml", [], "", USAGE),
        ("broker.toml", [], "tls_cert = 'x'\n", CONFIGURATION),
    ],
)
def test_check_takes_one_file(tmp_path: Path, name: str, kind: list[str], text: str, code: int) -> None:
    (tmp_path / name).write_text(text)
    assert run(tmp_path, "config", "check", "--file", str(tmp_path / name), *kind).code == code


def test_check_refuses_a_file_that_does_not_exist_and_options_that_do_not_fit(tmp_path: Path) -> None:
    missing = run(tmp_path, "config", "check", "--file", str(tmp_path / "config.toml"))
    assert (missing.code, "does not exist" in missing.err) == (CONFIGURATION, True)
    assert run(tmp_path, "config", "check", "--kind", "hooks").code == USAGE


def test_show_names_the_origin_of_each_value(home: Path) -> None:
    path = home / "daemon" / "team" / "config.toml"
    path.write_text("# ours\n[ipc]\nhttp_port = 1\n")
    done = run(home, "config", "show", "--origin")
    assert (done.code, done.err) == (OK, "No daemon runs.\n")
    shown = rows(done)
    assert shown["[ipc] http_port"] == ["1", f"{path}:3"]
    assert shown["[daemon] log_level"] == ['"info"', "default"]
    assert shown["[hooks] enabled"] == ["(true; false in CI)", "default"]
    assert rows(run(home, "config", "show"))["[ipc] http_port"] == ["1"]


def test_show_lists_the_faults_of_a_wrong_file(home: Path) -> None:
    (home / "daemon" / "team" / "config.toml").write_text("[ipc]\nhttp_port = -1\n[x]\n")
    done = run(home, "config", "show")
    assert (done.code, done.out, len(done.err.splitlines())) == (CONFIGURATION, "", 2)


def test_show_names_values_that_the_running_daemon_does_not_use_yet(pair: Mesh) -> None:
    home, _ = homes(pair)
    daemon = pair.daemons["alice"]
    config = daemon.root / "config.toml"
    before = config.read_text()
    assert "The running daemon uses these settings." in run(home, "config", "show").err
    try:
        config.write_text(f"{before}[inbox]\nretention_days = 9\n[hooks]\nconcurrency = 3\n")
        done = run(home, "config", "show")
        assert "uses [inbox] retention_days = 30: claudemesh daemon reload" in done.err
        assert "uses [hooks] concurrency = 8: claudemesh daemon restart" in done.err
        assert run(home, "daemon", "reload").code == OK
        found = run(home, "config", "show", "--json").json
        items = {item["key"]: item for item in found["items"]}
        assert (items["[inbox] retention_days"]["pending"], items["[inbox] retention_days"]["in_force"]) == (
            None,
            9,
        )
        assert (items["[hooks] concurrency"]["pending"], items["[hooks] concurrency"]["in_force"]) == (
            "restart",
            8,
        )
        assert (found["running"], found["daemon"]["error"]) == (True, None)
    finally:
        config.write_text(before)
        assert run(home, "daemon", "reload").code == OK


def test_a_broker_shows_the_origin_of_each_value_and_no_secret(home: Path) -> None:
    (home / "broker" / "broker.toml").write_text(f'log_level = "debug"\nadmin_token = "{SECRET}"\n')
    environment = {
        "CLAUDEMESH_BROKER_DATABASE_URL": f"postgresql://me:{SECRET}@host/x",
        "CLAUDEMESH_BROKER_PUBLIC_URL": "ws://one:1,ws://two:2",
    }
    flags = ["--listen", "127.0.0.1:1"]
    done = run(home, "broker", "config", "show", "--origin", *flags, **environment)
    assert done.code == OK
    shown = rows(done)
    assert shown["listen"] == ['"127.0.0.1:1"', "--listen"]
    assert shown["public_url"] == ['["ws://one:1", "ws://two:2"]', "environment CLAUDEMESH_BROKER_PUBLIC_URL"]
    assert shown["log_level"] == ['"debug"', f"{home / 'broker' / 'broker.toml'}:1"]
    assert shown["database_url"] == ["(set, not shown)", "environment CLAUDEMESH_BROKER_DATABASE_URL"]
    assert shown["admin_token"] == ["(set, not shown)", f"{home / 'broker' / 'broker.toml'}:2"]
    assert shown["data_dir"] == [json.dumps(str(home / "broker")), "default"]
    found = run(home, "broker", "config", "show", *flags, "--json", **environment)
    items = {item["key"]: item for item in found.json["items"]}
    assert (items["database_url"]["value"], items["database_url"]["set"]) == (None, True)
    assert items["listen"]["origin"] == {"source": "flag", "name": "--listen", "line": None}
    assert SECRET not in done.out + done.err + found.out + found.err


def test_a_broker_checks_flags_environment_and_file_together(home: Path) -> None:
    assert run(home, "broker", "config", "check").code == OK
    (home / "broker" / "broker.toml").write_text("listen = 3\n")
    environment = {"CLAUDEMESH_BROKER_REDIS_URL": "redis://host", "CLAUDEMESH_BROKER_INLINE_BYTES": "12"}
    done = run(home, "broker", "config", "check", "--tls-cert", "x", **environment)
    assert done.code == CONFIGURATION
    assert [line.removeprefix("claudemesh: error: ") for line in done.err.splitlines()] == [
        f"{home / 'broker' / 'broker.toml'}:1: listen must be host:port, for example 127.0.0.1:7900, not 3.",
        'CLAUDEMESH_BROKER_INLINE_BYTES: inline_bytes must be a whole number from 1024 to 4194304, not "12".',
        "--tls-cert: tls_cert is given without tls_key: give tls_key too "
        "(--tls-key, CLAUDEMESH_BROKER_TLS_KEY).",
    ]
    assert run(home, "broker", "config", "show", **environment).code == CONFIGURATION
