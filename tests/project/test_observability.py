"""examples/observability: the metrics are scraped over HTTP, and the dashboard asks for them."""

import asyncio
import inspect
import itertools
import re
import socket
import subprocess
import sys
import urllib.request

import orjson
import promql_parser
import pytest
import yaml
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client.parser import text_string_to_metric_families
from support.canaries import CODE
from support.example_modules import load_example
from support.files import EXAMPLES
from support.webhook_routers import deliver, make_router

from rm_voucher import FlowPolicy, bulk_issue
from rm_voucher.emulator import Emulator
from rm_voucher.ledger import Ledger
from rm_voucher.shared import MemorySharedStore
from rm_voucher.webhooks import MemoryEventStore

pytestmark = pytest.mark.skipif(
    "scope_info_enabled" not in inspect.signature(PrometheusMetricReader).parameters,
    reason="the example needs opentelemetry-exporter-prometheus 0.64b0 or newer",
)

FOLDER = EXAMPLES / "observability"
DASHBOARD = orjson.loads((FOLDER / "dashboard.json").read_bytes())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]
EXPRESSIONS = QUERIES + [alert["expr"] for alert in ALERTS]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url):
    with urllib.request.urlopen(url) as answer:
        return answer.read().decode()


async def scrape():
    """Return what Prometheus gets of a process that does all there is to see."""
    port = free_port()
    with load_example("observability/prometheus_metrics").metrics_served(port) as hook:
        emulator = Emulator(batches={"TEA": 20})
        client = emulator.client(
            hooks=[hook], shared=MemorySharedStore(), flow=FlowPolicy(rate_per_s=1000)
        )
        router = make_router(MemoryEventStore(), hooks=[hook])
        async with client, Ledger.in_memory() as ledger, router:
            await ledger.issue(client, "TEA", "order 1")
            await deliver(router, CODE)
            async with bulk_issue(client, "TEA", range(3)) as run:
                assert len([result async for result in run]) == 3
                # Another thread reads the client, the ledger and the run.
                return await asyncio.to_thread(get, f"http://127.0.0.1:{port}/metrics")


@pytest.fixture(scope="module")
def text():
    return asyncio.run(scrape())


@pytest.fixture(scope="module")
def families(text):
    return {
        family.name: family
        for family in text_string_to_metric_families(text)
        if family.name != "target_info"
    }


def names_in(query):
    return set(re.findall(r"\brm_voucher_(?!client|state|outcome|operation)\w+", query))


def labels_in(query):
    found = re.findall(r"\{([^}]*)\}|by \(([^)]*)\)", query)
    words = ",".join(itertools.chain.from_iterable(found))
    return set(re.findall(r"\b(?:rm_voucher_\w+|le)\b", words))


def without_suffix(name, families):
    base = re.sub(r"_(bucket|count|sum)$", "", name)
    return base if base in families else name


def test_dashboard_asks_for_each_metric_and_no_other(families):
    """Its queries name what a scrape has: all of it, and nothing else."""
    asked = set().union(*map(names_in, QUERIES))
    assert {without_suffix(name, families) for name in asked} == set(families)


@pytest.mark.parametrize("query", EXPRESSIONS)
def test_query_is_one_of_prometheus_and_of_what_is_there(query, families):
    """Its grammar holds, and each metric has the labels that it looks at."""
    query = query.replace("$__rate_interval", "1m")
    promql_parser.parse(query)
    samples = [sample for family in families.values() for sample in family.samples]
    assert names_in(query)
    for name in names_in(query):
        there = [set(sample.labels) for sample in samples if sample.name == name]
        assert there
        assert labels_in(query) <= set.union(*there)


def test_scrape_shows_no_code_and_no_batch(text):
    """Labels have few values, so that Prometheus can keep them."""
    assert CODE not in text
    assert "TEA" not in text
    assert "order 1" not in text


def test_dashboard_is_one_of_grafana():
    """With what Grafana needs of each panel; none lies on another, or out of the page."""
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= DASHBOARD.keys()
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", repr(DASHBOARD["panels"]))) - {"__rate_interval"}
    assert used == variables == {"client", "datasource"}
    everyone = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everyone}) == len(everyone)
    taken: set[tuple[int, int]] = set()
    for panel in everyone:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
    for panel in PANELS:
        assert panel["type"] in ("stat", "timeseries")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)


def test_prometheus_is_told_where_the_example_serves():
    """The port of the one is that of the other, and the alerts are a file beside it."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["127.0.0.1:9464"]}]
    assert config["rule_files"] == ["alerts.yml"]
    assert "port: int = 9464" in (FOLDER / "prometheus_metrics.py").read_text()


@pytest.mark.long
def test_example_runs_by_itself():
    """It serves, and issues, until it is interrupted."""
    port = free_port()
    program = (FOLDER / "prometheus_metrics.py").read_text().replace("9464", str(port))
    command = [sys.executable, "-W", "error", "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"1 issued: http://127.0.0.1:{port}/metrics\n"
            text = get(f"http://127.0.0.1:{port}/metrics")
        finally:
            process.terminate()
    assert 'rm_voucher_client="breakfast"' in text
