"""Metrics, scrape configuration, alerts and dashboards name the same metrics, and Prometheus takes them."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.audit import wait_done
from tests.support.cli import run
from tests.support.processes import REPOSITORY, Broker, Mesh, mesh
from tests.support.waiting import WAIT_S

DEPLOY = REPOSITORY / "docs/deploy"
RULE_TESTS = Path(__file__).with_name("alerts_test.yml")
PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed: it is in the Debian package prometheus"
)


@pytest.fixture(scope="module")
def pair() -> Generator[Mesh]:
    """A broker, alice and bob, with a message between them."""
    with mesh("alice", "bob") as made:
        alice = made.daemons["alice"]
        alice.send("bob", "text", client_message_id="one")
        wait_done(alice, ["one"])
        yield made


@pytest.fixture(scope="module")
def pages(pair: Mesh) -> dict[str, str]:
    """The metrics of the running programs, as Prometheus gets them."""
    return {
        "broker": scraped(pair.broker),
        "daemon": run(pair.daemons["alice"].home, "daemon", "metrics").out,
    }


def scraped(broker: Broker) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", broker.port, timeout=WAIT_S)
    with closing(connection):
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


def kinds(page: str) -> dict[str, str]:
    """The type of each metric of a page."""
    return dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))


def promtool(*arguments: str, stdin: str = "") -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], input=stdin, capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stdout + done.stderr


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_queries(program: str) -> list[str]:
    panels = json.loads((REPOSITORY / f"docs/grafana-{program}.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


@pytest.mark.parametrize("program", ["broker", "daemon"])
def test_names_of_metrics_follow_the_conventions(pages: dict[str, str], program: str) -> None:
    """A counter ends in `_total`, no other metric does, and units are base units."""
    found = kinds(pages[program])
    assert len(found) > 15
    assert [name for name, kind in found.items() if (kind == "counter") != name.endswith("_total")] == []
    abbreviated = re.compile(r"_(ms|us|ns|s|sec|kb|mb|gb|min)(_|$)")
    assert [name for name in found if abbreviated.search(name)] == []


@needs_promtool
@pytest.mark.parametrize("program", ["broker", "daemon"])
def test_promtool_finds_no_fault_in_the_metrics(pages: dict[str, str], program: str) -> None:
    promtool("check", "metrics", stdin=pages[program])


def test_every_metric_of_an_alert_or_a_dashboard_exists(pages: dict[str, str]) -> None:
    """By the names that the running programs give out."""
    declared = {"up"}
    for page in pages.values():
        for name, kind in kinds(page).items():
            declared |= {name, f"{name}_bucket"} if kind == "histogram" else {name}
    queries = [rule["expr"] for rule in rules()]
    queries += dashboard_queries("broker") + dashboard_queries("daemon")
    wanted = {name for query in queries for name in re.findall(r"\bcm_\w+", query)}
    assert len(wanted) > 25
    assert wanted - declared == set()


def test_every_metric_of_an_alert_is_on_the_page_of_a_running_program(pages: dict[str, str]) -> None:
    """A counter that appears with the value 1 has no rise that a rate would see."""
    wanted = {name for rule in rules() for name in re.findall(r"\bcm_\w+", rule["expr"])}
    samples = {name for page in pages.values() for name in re.findall(r"^(cm_\w+)", page, re.MULTILINE)}
    # The names of hooks are those of the user: a series begins with the first run of each.
    assert wanted - samples <= {"cm_daemon_hook_invocations_total"}


def test_every_alert_has_a_severity_a_text_and_a_test() -> None:
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found) > 10
    for rule in found:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}
    bad = yaml.safe_load(RULE_TESTS.read_text())["tests"][0]["promql_expr_test"][0]["exp_samples"]
    tested = {re.findall(r'"(\w+)"', sample["labels"])[0] for sample in bad}
    assert tested == {rule["alert"] for rule in found}
    page = (REPOSITORY / "docs/monitoring.md").read_text()
    assert [rule["alert"] for rule in found if f"`{rule['alert']}`" not in page] == []


@needs_promtool
def test_promtool_takes_the_alerts_and_each_fires_when_it_should() -> None:
    promtool("check", "rules", str(DEPLOY / "alerts.yml"))
    promtool("test", "rules", str(RULE_TESTS))


@needs_promtool
def test_promtool_takes_the_scrape_configuration() -> None:
    promtool("check", "config", "--syntax-only", str(DEPLOY / "prometheus.yml"))


def test_scrape_configuration_reads_both_programs(pair: Mesh) -> None:
    """The paths and the token of the file, at the addresses of a running broker and daemon."""
    jobs = {
        job["job_name"]: job
        for job in yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    }
    assert {f"claudemesh-{program}" for program in ("broker", "daemon")} == set(jobs)
    assert "metrics_path" not in jobs["claudemesh-broker"]
    assert "cm_broker_accepts_total" in scraped(pair.broker)
    alice = pair.daemons["alice"]
    alice.stop()
    (alice.root / "config.toml").write_text("[ipc]\ntcp_enabled = true\n")
    alice.start()
    alice.ready()
    port = int((alice.root / "http.port").read_text())
    token = (alice.root / "local_token").read_text().strip()
    assert "credentials_file" in jobs["claudemesh-daemon"]["authorization"]
    for header, status in ((f"Bearer {token}", 200), ("Bearer wrong", 401)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        with closing(connection):
            connection.request(
                "GET", jobs["claudemesh-daemon"]["metrics_path"], headers={"Authorization": header}
            )
            response = connection.getresponse()
            assert response.status == status
            assert (b"cm_daemon_connected" in response.read()) == (status == 200)
