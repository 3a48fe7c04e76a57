"""Flag > environment > file > default, and what is said about a value that will not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from claudemesh.broker.setting_checks import split_listen
from claudemesh.broker.settings import BrokerSettings, load_settings, read_settings
from claudemesh.protocol.wire import MAX_INLINE_BYTES
from claudemesh.runtime.exits import CONFIGURATION, ExitWith


def test_each_source_overrides_the_next(tmp_path: Path) -> None:
    """A flag beats the environment, that beats broker.toml, that beats the default."""
    (tmp_path / "broker.toml").write_text(
        'listen = "127.0.0.1:1"\npublic_url = "ws://file:1"\ninline_bytes = 2048\n'
    )
    environment = {
        "CLAUDEMESH_BROKER_DATA_DIR": str(tmp_path),
        "CLAUDEMESH_BROKER_LISTEN": "127.0.0.1:2",
        "CLAUDEMESH_BROKER_PUBLIC_URL": "ws://env:1, ws://more:2",
    }
    found = load_settings({"listen": "127.0.0.1:3", "public_url": None}, environment)
    urls = ("ws://env:1", "ws://more:2")
    assert (found.listen, found.public_url, found.inline_bytes) == ("127.0.0.1:3", urls, 2048)
    assert (found.data_dir, found.log_level) == (tmp_path, "info")


def test_the_default_data_dir_follows_the_home(tmp_path: Path) -> None:
    """Without a flag the data dir is `broker` below CLAUDEMESH_HOME."""
    assert load_settings({}, {"CLAUDEMESH_HOME": str(tmp_path)}).data_dir == tmp_path / "broker"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"listen": "7900"}, "--listen"),
        ({"listen": "127.0.0.1:70000"}, "--listen"),
        ({"listen": "127.0.0.1:" + "9" * 5000}, "--listen"),
        ({"inline_bytes": "9" * 5000}, "inline"),
        ({"listen": "127.0.0.1:٣"}, "--listen"),
        ({"public_url": "mesh.example.org"}, "--public-url"),
        ({"public_url": "ws://host:99999"}, "--public-url"),
        ({"public_url": ("ws://host", "nowhere")}, "--public-url"),
        ({"public_url": ["ws://host", 1]}, "--public-url"),
        ({"public_url": 7}, "--public-url"),
        ({"inline_bytes": "12"}, "--inline-bytes"),
        ({"inline_bytes": True}, "--inline-bytes"),
        ({"log_level": "loud"}, "--log-level"),
        ({"listen": 7}, "--listen"),
        ({"database_url": "mysql://host/database"}, "--database-url"),
        ({"allow_unsafe_postgres": "perhaps"}, "--allow-unsafe-postgres"),
        ({"allow_unsafe_postgres": 1}, "--allow-unsafe-postgres"),
        ({"inline_bytes": str(MAX_INLINE_BYTES + 1)}, "--inline-bytes"),
        ({"listen": "a b:7900"}, "--listen"),
        ({"listen": "a" * 64 + ":7900"}, "--listen"),
        ({"listen": "ho\0st:7900"}, "--listen"),
        ({"public_url": "http://mesh.example.org"}, "--public-url"),
        ({"database_url": "postgresql://host:port/database"}, "--database-url"),
        ({"database_url": "postgresql://one,two:0/database"}, "--database-url"),
        ({"database_url": "postgresql://[::1/database"}, "--database-url"),
        ({"database_url": "postgresql://host/database?sslmode"}, "--database-url"),
        ({"database_url": "postgresql://host/database?sslmode=on"}, "--database-url"),
        ({"database_url": "postgresql://host/database?port=x"}, "--database-url"),
        ({"database_url": "postgresql://host/database?host=a,b,c&port=1,2"}, "--database-url"),
        ({"database_url": "postgresql://host/data\x00base"}, "--database-url"),
        ({"redis_url": "host:6379"}, "--redis-url"),
        ({"redis_url": "http://host"}, "--redis-url"),
        ({"redis_url": "redis://host:x"}, "--redis-url"),
        ({"redis_url": "redis://host/x"}, "--redis-url"),
        ({"redis_url": "redis://"}, "--redis-url"),
        ({"redis_url": "unix://"}, "--redis-url"),
        ({"redis_url": "redis://host/0?timeout_s=1"}, "--redis-url"),
        ({"redis_url": "redis://host?ssl_ca_certs=/x"}, "--redis-url"),
        ({"redis_url": "redis://host?db=x"}, "--redis-url"),
        ({"tls_cert": "/no/such/file", "tls_key": "/no/such/key"}, "/no/such/file"),
        ({"tls_cert": "nul\0", "tls_key": "key"}, "--tls-cert"),
    ],
)
def test_a_bad_value_is_named(flags: dict[str, object], named: str, tmp_path: Path) -> None:
    """Exit 78, and the message says which setting it is."""
    with pytest.raises(ExitWith) as caught:
        load_settings({"data_dir": str(tmp_path), **flags}, {})
    assert caught.value.code == CONFIGURATION
    assert named in caught.value.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen", "[::1]:0"),
        ("listen", "localhost:7900"),
        ("public_url", "wss://[2001:db8::1]:8443/"),
        ("database_url", "postgresql:///database"),
        ("database_url", "postgres://me:p%40ss@one:5432,two:5433/database?target_session_attrs=primary"),
        ("database_url", "postgresql://me@[::1]:5432,10.0.0.1/database?sslmode=verify-full"),
        ("database_url", "postgresql://%2Fvar%2Frun%2Fpostgresql/database?application_name=x"),
        ("database_url", "postgresql:///database?host=/var/run/postgresql&port=5433"),
        ("redis_url", "redis://:hush@host:6379/2"),
        ("redis_url", "rediss://host"),
        ("redis_url", "rediss://host:6380/1?ssl_ca_certs=/etc/ca.pem&ssl_cert_reqs=required"),
        ("redis_url", "unix:///run/redis.sock?db=1"),
        ("admin_token", "t" * 16),
        ("inline_bytes", MAX_INLINE_BYTES),
    ],
)
def test_a_value_with_which_a_broker_starts_is_accepted(name: str, value: object, tmp_path: Path) -> None:
    found = load_settings({"data_dir": str(tmp_path), name: value}, {})
    assert getattr(found, name) in (value, (value,))


@pytest.mark.parametrize("token", ["short", "with a blank in the middle", "t\u00fcr" * 16, "line\n" * 8])
def test_a_token_that_no_broker_starts_with_is_a_fault_and_not_shown(token: str, tmp_path: Path) -> None:
    with pytest.raises(ExitWith) as caught:
        load_settings({"data_dir": str(tmp_path)}, {"CLAUDEMESH_BROKER_ADMIN_TOKEN": token})
    assert caught.value.message.startswith("CLAUDEMESH_BROKER_ADMIN_TOKEN: admin_token must be a text of at")
    assert token not in caught.value.message


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("public_url", "wss://me:hush@host", "A broker's URL has no user, no password, no query"),
        ("public_url", "https://host", "A broker's URL does not begin with https://. Use wss://"),
        ("public_url", "wss://host:hush", "The host or the port in the broker's URL is malformed."),
        ("public_url", "wss://host/../hush", "The path in the broker's URL has other characters than"),
        ("listen", "a b:1", "The host is neither an address nor a name."),
        ("trusted_proxies", "10.0.0.5,x", "An entry is neither an address nor a network."),
        ("database_url", "mysql://me:hush@host", "The URL does not begin with postgresql:// or postgres://."),
        ("database_url", "postgresql://one:1,two:hush/database", "A port is a number from 1 to 65535."),
        ("database_url", "postgresql://host/database?sslmode=hush", "sslmode is one of disable, prefer"),
        ("database_url", "postgresql://host/database?hush", "The parameters after the ? are name=value"),
        ("redis_url", "redis://:hush@host:x/0", "The host or the port in the URL is malformed."),
        ("redis_url", "redis://host/0?hush=1", "The client of Redis knows no such parameter."),
        ("admin_token", "hush", "The token has too few characters."),
        ("admin_token", "h ush" * 16, "The token has a blank, a control character or one that is not ASCII."),
    ],
)
def test_a_refused_value_is_answered_with_the_reason(
    name: str, value: str, reason: str, tmp_path: Path
) -> None:
    """The reason repeats no part of the value, which may be a secret."""
    with pytest.raises(ExitWith) as caught:
        load_settings({"data_dir": str(tmp_path), name: value}, {})
    allowed, found, told = caught.value.message.partition(reason)
    assert found and " must be " in allowed
    assert "hush" not in found + told
    assert name in {"public_url"} or "hush" not in allowed


@pytest.mark.parametrize("text", ["not toml", 'colour = "red"', "listen = 3"])
def test_a_bad_file_is_refused(text: str, tmp_path: Path) -> None:
    """A file that is not TOML, or has an unknown key, is refused as a whole."""
    (tmp_path / "broker.toml").write_text(text)
    with pytest.raises(ExitWith):
        load_settings({"data_dir": str(tmp_path)}, {})


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """The file in the data dir is optional; one that was asked for is not."""
    with pytest.raises(ExitWith):
        load_settings({}, {"CLAUDEMESH_HOME": str(tmp_path)}, tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("environment", "text", "sentence"),
    [
        (
            {"CLAUDEMESH_BROKER_LISTEN": "7900"},
            "",
            'CLAUDEMESH_BROKER_LISTEN: listen must be host:port, for example 127.0.0.1:7900, not "7900".',
        ),
        ({"CLAUDEMESH_BROKER_DATA_DIR": ""}, "", "CLAUDEMESH_BROKER_DATA_DIR: data_dir must be"),
        ({}, 'listen = "7900"\n', "broker.toml:1: listen must be host:port"),
        ({}, '\nlistn = "x"\n', "broker.toml:2: There is no key listn. Did you mean listen?"),
        (
            {},
            'tls_key = "k"\n',
            "broker.toml:1: tls_key is given without tls_cert: give tls_cert too (--tls-cert",
        ),
        (
            {},
            'trusted_proxies = "10.0.0.5,x"\n',
            "broker.toml:1: trusted_proxies must be addresses or networks",
        ),
    ],
)
def test_a_fault_names_the_variable_or_the_line(
    tmp_path: Path, environment: dict[str, str], text: str, sentence: str
) -> None:
    (tmp_path / "broker").mkdir()
    (tmp_path / "broker" / "broker.toml").write_text(text)
    with pytest.raises(ExitWith) as caught:
        load_settings({}, {"CLAUDEMESH_HOME": str(tmp_path), **environment})
    assert sentence in caught.value.message


def test_the_origin_of_each_value_is_kept(tmp_path: Path) -> None:
    (tmp_path / "broker.toml").write_text('# ours\nlog_level = "DEBUG"\nlisten = "127.0.0.1:1"\n')
    merged = read_settings({"data_dir": str(tmp_path)}, {"CLAUDEMESH_BROKER_LISTEN": "127.0.0.1:2"})
    origins = {name: str(given.origin) for name, given in merged.given.items()}
    assert origins["data_dir"] == "--data-dir"
    assert origins["listen"] == "CLAUDEMESH_BROKER_LISTEN"
    assert origins["log_level"] == f"{tmp_path / 'broker.toml'}:2"
    assert origins["redis_url"] == "default"
    assert (merged.values["log_level"], merged.faults) == ("debug", ())


def test_addresses_are_split() -> None:
    """An IPv6 address stands in brackets."""
    assert split_listen("[::1]:80") == ("::1", 80)


def test_the_database_is_chosen_by_flag_environment_or_file(tmp_path: Path) -> None:
    """Without it the broker is embedded; a switch is a word in the environment."""
    assert load_settings({"data_dir": str(tmp_path)}, {}).database_url is None
    (tmp_path / "broker.toml").write_text(
        'database_url = "postgres://file/x"\nallow_unsafe_postgres = true\n'
    )
    found = load_settings({"data_dir": str(tmp_path)}, {})
    assert (found.database_url, found.allow_unsafe_postgres) == ("postgres://file/x", True)
    environment = {
        "CLAUDEMESH_BROKER_DATABASE_URL": "postgresql://environment/x",
        "CLAUDEMESH_BROKER_ALLOW_UNSAFE_POSTGRES": "false",
    }
    found = load_settings({"data_dir": str(tmp_path)}, environment)
    assert (found.database_url, found.allow_unsafe_postgres) == ("postgresql://environment/x", False)


def test_no_secret_is_in_the_settings_text() -> None:
    """A token or a password does not show up where settings are printed, or where one is refused."""
    made = BrokerSettings(
        data_dir=Path("/nowhere"), admin_token="hush", database_url="postgres://me:hush@host/x"
    )
    assert "hush" not in repr(made)
    with pytest.raises(ExitWith) as caught:
        load_settings({"database_url": "mysql://me:hush@host/x", "data_dir": "/nowhere"}, {})
    assert "hush" not in caught.value.message
