"""The recipes of the pages, each run as a reader runs it: the archive, a mesh, and nothing else."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import textwrap

import pytest
import yaml

from claudemesh.broker.settings import ENV_PREFIX, TABLE
from tests.support.hosts import Host
from tests.support.postgres import Server, binaries
from tests.support.processes import REPOSITORY, until
from tests.support.pyz import PYZ

_DOCS = REPOSITORY / "docs"
_INVITE = re.compile(r"claudemesh://join/\S+")


def blocks(heading: str) -> list[str]:
    """The commands below a heading of the page of backups."""
    page = (_DOCS / "backup.md").read_text()
    section = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert section is not None, heading
    found = re.findall(r"^ *```sh\n(.*?)^ *```", section[1], re.MULTILINE | re.DOTALL)
    assert found
    return [textwrap.dedent(block) for block in found]


def bodies(host: Host) -> list[str]:
    """The texts in a host's inbox."""
    return [item["body"] for item in json.loads(host.run("claudemesh inbox --json"))["items"]]


@pytest.fixture
def team(hosts: tuple[Host, Host]) -> tuple[Host, Host]:
    """Alice's host with a broker and a daemon, and bob's in the same mesh."""
    make_mesh(hosts)
    return hosts


def make_mesh(hosts: tuple[Host, Host]) -> None:
    """Make a mesh of two hosts."""
    one, two = hosts
    one.run("claudemesh broker up -d\nclaudemesh mesh create team --name alice\nclaudemesh daemon up -d")
    link = _INVITE.search(one.run("claudemesh invite create"))
    assert link is not None
    two.run(f"claudemesh join '{link[0]}' --name bob\nclaudemesh daemon up -d")


def loses_nothing(hosts: tuple[Host, Host], backup: str, restore: str) -> None:
    """Send a message before the copy, one after it and one after the restore: each arrives once."""
    one, two = hosts
    one.run("claudemesh send bob before --id before --wait 30000")
    one.run(backup)
    one.run("claudemesh send bob after --id after --wait 30000")
    one.run(restore)
    for host in hosts:
        host.run("claudemesh wait --for online")
    one.run("claudemesh send bob last --id last --wait 30000")
    assert until(lambda: sorted(bodies(two)) == ["after", "before", "last"], "each is there once")


def test_a_broker_on_sqlite_is_backed_up_and_restored(team: tuple[Host, Host]) -> None:
    loses_nothing(team, *blocks("A broker on SQLite"))
    kept = team[0].home / ".claudemesh/broker"
    assert len(list(kept.glob("aside-*/broker.db"))) == 1


def test_a_broker_on_postgres_is_backed_up_and_restored(hosts: tuple[Host, Host]) -> None:
    server = Server()
    try:
        server.start()
        one = hosts[0]
        one.environment["CLAUDEMESH_BROKER_DATABASE_URL"] = server.url()
        one.environment["PATH"] = f"{binaries()}:{one.environment['PATH']}"
        make_mesh(hosts)
        loses_nothing(hosts, *blocks("A broker on Postgres"))
        one.run("claudemesh broker down")
    finally:
        server.remove()


def test_a_daemon_is_backed_up_and_restored(team: tuple[Host, Host]) -> None:
    """Its keys come back after its directory was lost."""
    one, two = team
    backup, restore = blocks("A daemon")
    one.run(backup)
    key = json.loads(one.run("claudemesh whoami --json"))["member_pubkey"]
    one.run("claudemesh daemon down")
    shutil.rmtree(one.home / ".claudemesh/daemon/team")
    one.run(restore)
    assert json.loads(one.run("claudemesh whoami --json"))["member_pubkey"] == key
    one.run("claudemesh send bob again --id again --wait 30000")
    assert until(lambda: bodies(two) == ["again"], "the restored member sends")


def test_an_upgrade_and_a_rollback_replace_the_file_under_a_running_mesh(team: tuple[Host, Host]) -> None:
    """Old and new file are the same here; tests/migrations holds the change of a schema."""
    one, two = team
    for folder in ("bin", "download"):
        (one.home / folder).mkdir()
        shutil.copy(PYZ, one.home / folder / "claudemesh.pyz")
    one.run("claudemesh send bob before --wait 30000")
    for block in blocks("Upgrade"):
        one.run(block)
    one.run("claudemesh wait --for online\nclaudemesh send bob upgraded --wait 30000")
    for block in blocks("Rollback"):
        one.run(block)
    one.run("claudemesh wait --for online\nclaudemesh send bob back --wait 30000")
    assert until(lambda: sorted(bodies(two)) == ["back", "before", "upgraded"], "each is there once")


class Job:
    """A job of GitHub Actions, as far as its steps need one."""

    def __init__(self, host: Host, link: str) -> None:
        workflow = yaml.safe_load((_DOCS / "deploy/github-actions.yml").read_text())
        [job] = workflow["jobs"].values()
        self.steps = [step for step in job["steps"] if "run" in step]
        self._host = host
        self._path = host.home / "path"
        self._path.touch()
        self._values = {
            "vars.CLAUDEMESH_URL": PYZ.as_uri(),
            "vars.CLAUDEMESH_SHA256": hashlib.sha256(PYZ.read_bytes()).hexdigest(),
            "secrets.CLAUDEMESH_INVITE": link,
        }

    def run(self, step: dict[str, object], run_id: str) -> None:
        """Run the commands of a step, as a runner does."""
        environment = {
            "GITHUB_RUN_ID": run_id,
            "GITHUB_RUN_ATTEMPT": "1",
            "CI": "true",
            "GITHUB_ACTIONS": "true",
        }
        environment |= {"RUNNER_TEMP": str(self._host.home), "GITHUB_PATH": str(self._path)}
        given = step.get("env", {})
        assert isinstance(given, dict)
        for name, value in given.items():
            environment[name] = self._values[value.removeprefix("${{ ").removesuffix(" }}")]
        added = ":".join(self._path.read_text().split())
        lines = [f"export {name}='{value}'" for name, value in environment.items()]
        lines += [f'export PATH="{added}:$PATH"'] if added else []
        self._host.run("\n".join([*lines, 'cd "$HOME"', "unset -f claudemesh", str(step["run"])]))


def test_the_workflow_of_github_actions_tells_the_result_of_a_job(hosts: tuple[Host, Host]) -> None:
    """Its steps run as they stand. The second job runs with a build that fails, and fails too."""
    one, two = hosts
    one.run("claudemesh broker up -d\nclaudemesh mesh create team --name alice\nclaudemesh daemon up -d")
    link = _INVITE.search(one.run("claudemesh invite create --uses 1000 --expires 30d --ephemeral-only"))
    assert link is not None
    job = Job(two, link[0])
    get, build = job.steps
    (two.home / "Makefile").write_text("test:\n\t@true\n")
    job.run(get, "7")
    job.run(build, "7")
    assert until(lambda: bodies(one), "the message arrives") == ["run 7 passed"]
    (two.home / "Makefile").write_text("test:\n\t@false\n")
    with pytest.raises(AssertionError):
        job.run(build, "8")
    assert until(lambda: sorted(bodies(one)) == ["run 7 passed", "run 8 failed"], "the failure arrives")


def test_the_compose_file_fits_the_image_and_a_broker(hosts: tuple[Host, Host]) -> None:
    """There is no engine here: it is compared with the Dockerfile, and a broker runs with its variables."""
    services = yaml.safe_load((_DOCS / "deploy/compose.yaml").read_text())["services"]
    broker, database = services["broker"], services["database"]
    assert broker["init"] is True
    assert (_DOCS / "deploy" / broker["build"]).resolve() == REPOSITORY
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    [volume] = broker["volumes"]
    assert f"VOLUME {volume.partition(':')[2]}" in dockerfile
    [port] = broker["ports"]
    assert f"EXPOSE {port.rpartition(':')[2]}" in dockerfile
    known = {f"{ENV_PREFIX}{key.field.upper()}" for key in TABLE.keys}
    assert set(broker["environment"]) <= known
    assert broker["depends_on"]["database"]["condition"] == "service_healthy"
    assert database["healthcheck"]["test"][1].startswith("pg_isready")
    url = broker["environment"]["CLAUDEMESH_BROKER_DATABASE_URL"]
    assert re.fullmatch(r"postgresql://claudemesh:\$\{POSTGRES_PASSWORD:\?.*\}@database/claudemesh", url)
    variables = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"}
    assert set(database["environment"]) == variables
    server = Server()
    try:
        server.start()
        one = hosts[0]
        one.environment |= broker["environment"] | {"CLAUDEMESH_BROKER_DATABASE_URL": server.url()}
        one.run("claudemesh broker up -d")
        assert "ws://127.0.0.1:7900" in one.run("claudemesh broker status --json")
        one.run("claudemesh broker down")
    finally:
        server.remove()
