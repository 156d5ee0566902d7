"""docs/worker.md and docs/deployment.md: the commands run, and the manifests fit the command."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from support.files import DOCS, EXAMPLES, ROOT
from typer import Context
from typer.main import get_command

from rm_voucher.cli.app import app
from rm_voucher.worker import open_broker

DEPLOYMENT = EXAMPLES / "deployment"
COMPOSE: Any = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text())
MANIFESTS: list[Any] = list(
    yaml.safe_load_all((DEPLOYMENT / "kubernetes" / "worker.yaml").read_text())
)
(POD,) = [each["spec"]["template"]["spec"] for each in MANIFESTS if each["kind"] == "Deployment"]
(CONTAINER,) = POD["containers"]
SERVICE = COMPOSE["services"]["worker"]
ARGUMENTS = {"compose": SERVICE["command"], "kubernetes": CONTAINER["args"]}
GRACE_S = {
    "compose": int(SERVICE["stop_grace_period"].removesuffix("s")),
    "kubernetes": POD["terminationGracePeriodSeconds"],
}


def options_of(arguments: list[str]) -> dict[str, Any]:
    """Parse arguments as the command does; a mistake is an error."""
    command: Any = get_command(app)
    worker = command.get_command(Context(command), "worker")
    return dict(worker.make_context("worker", list(arguments)).params)


def test_first_command_of_the_page() -> None:
    """A newcomer sees a hundred messages become a hundred vouchers, with the extra alone."""
    (line,) = re.findall(r"^rm-voucher worker --environment memory.*$", _page("worker"), re.M)
    _, *arguments = shlex.split(line)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "rm_voucher.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    codes = {orjson.loads(text)["code"] for text in done.stdout.splitlines()}
    assert len(codes) == 100
    assert "100 messages: 100 vouchers, 0 parked." in done.stderr


@pytest.mark.parametrize("where", ARGUMENTS)
def test_arguments_are_those_of_the_command(where: str) -> None:
    """They are taken, health is reachable from outside, and there is time enough to stop."""
    options = options_of(ARGUMENTS[where])
    assert options["host"] == "0.0.0.0"
    assert not options["exclusive"]  # only a person can know that
    assert GRACE_S[where] >= options["stop"] + 10


def test_ports_and_paths_are_those_that_are_served() -> None:
    options = options_of(CONTAINER["args"])
    assert CONTAINER["ports"] == [{"name": "http", "containerPort": options["port"]}]
    assert CONTAINER["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert CONTAINER["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert f":{options_of(SERVICE['command'])['port']}/readyz" in str(SERVICE["healthcheck"])


def test_variables_are_those_that_are_read() -> None:
    """Each RM_ variable of the files is read somewhere in the package."""
    package = "".join(path.read_text() for path in (ROOT / "rm_voucher").rglob("*.py"))
    files = [path.read_text() for path in DEPLOYMENT.rglob("*") if path.is_file()]
    names = set(re.findall(r"\bRM_[A-Z_]+", "".join([*files, _page("worker")])))
    assert {"RM_WORKER_BROKER", "RM_WORKER_LEDGER", "RM_PRIVATE_KEY"} <= names
    assert {name for name in names if name not in package} == set()


def test_variables_of_compose_are_on_the_page() -> None:
    """What must be in .env, and nothing else."""
    asked = set(re.findall(r"\$\{([A-Z_]+)", (DEPLOYMENT / "compose.yaml").read_text()))
    table = _page("deployment").split("| variable | value |")[1].split("\n\n")[0]
    assert set(re.findall(r"`([A-Z_]+)`", table)) == asked


def test_user_of_the_image_is_that_of_the_manifests() -> None:
    """It must read the key, which has an owner."""
    assert "--uid 1000 " in (DEPLOYMENT / "Dockerfile").read_text()
    assert POD["securityContext"]["runAsUser"] == 1000
    assert "chown 1000 private_key.pem" in _page("deployment")


def test_settings_of_rabbitmq_s_queues_are_on_the_page() -> None:
    """A shop that declares a queue needs exactly these."""
    broker: Any = open_broker("amqp://guest@127.0.0.1/")
    (row,) = re.findall(r"^\| `requests` \| (`x-.*) \|$", _page("worker"), re.M)
    shown = {}
    for argument in row.split(", "):
        name, value = argument.split(" ", 1)
        shown[name.strip("`")] = "" if value == "empty" else value.strip("`")
    made = {name: str(value) for name, value in broker._requests.arguments.items()}
    assert shown == made


def test_no_secret_is_in_the_files() -> None:
    """Passwords come from outside."""
    for name, value in SERVICE["environment"].items():
        if "password" in value.lower() or "SECRET" in name:
            assert "${" in value
    assert {each["name"] for each in CONTAINER["env"]} == {"BATCH_KEY", "RM_ENVIRONMENT"}


def test_number_of_workers_is_fixed() -> None:
    """More don't raise the limit: an autoscaler is no part of it, and marked where shown."""
    assert {each["kind"] for each in MANIFESTS} == {"Deployment", "PodDisruptionBudget"}
    keda = DEPLOYMENT / "kubernetes" / "keda.yaml"
    assert "makes nothing faster" in keda.read_text()
    assert yaml.safe_load(keda.read_text())["spec"]["maxReplicaCount"] == 3
    assert "is the wrong tool here" in _page("deployment")


@pytest.mark.parametrize("path", sorted(DEPLOYMENT.rglob("*.yaml")), ids=lambda path: path.name)
def test_files_are_yaml(path: Path) -> None:
    assert all(isinstance(each, dict) for each in yaml.safe_load_all(path.read_text()))


def _page(name: str) -> str:
    return (DOCS / f"{name}.md").read_text()
