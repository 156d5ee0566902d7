"""examples/emulator: what its containers run is run here, as processes that know the other's name.

No container is built or started by it.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from support.files import EXAMPLES, ROOT

FOLDER = EXAMPLES / "emulator"
COMPOSE: Any = yaml.safe_load((FOLDER / "compose.yaml").read_text())
EMULATOR, APPLICATION = (COMPOSE["services"][name] for name in ("emulator", "application"))
# In a network of containers a service's name leads to it.
NAMES = """
import socket
real = socket.getaddrinfo
def getaddrinfo(host, *rest, **options):
    return real("127.0.0.1" if host == "emulator" else host, *rest, **options)
socket.getaddrinfo = getaddrinfo
"""


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        number: int = free.getsockname()[1]
    return number


@pytest.fixture
def here(tmp_path: Path) -> dict[str, str]:
    """The variables of a process: the command's folder, this tree, and the other's name."""
    (tmp_path / "sitecustomize.py").write_text(NAMES)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RM_")}
    return kept | {
        "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
    }


@pytest.fixture
def emulator(tmp_path: Path, port: int, here: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """The emulator's process, once it says where it is."""
    command = [placed(part, tmp_path, port) for part in EMULATOR["command"]]
    with subprocess.Popen(
        ["rm-voucher", *command], env=here, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "no real vouchers" in process.stderr.readline()
        yield process
        process.terminate()
        process.stderr.read()


def placed(text: str, folder: Path, port: int) -> str:
    """Return a part of a command with this machine's folder and a port that is free."""
    return text.replace("/credentials", str(folder)).replace("8000", str(port))


@pytest.mark.usefixtures("emulator")
def test_application_issues(tmp_path: Path, port: int, here: dict[str, str]) -> None:
    """The very commands of the file: vouchers come, and their QR codes lead a browser there."""
    (script,) = APPLICATION["command"]
    done = subprocess.run(
        [*APPLICATION["entrypoint"], placed(script, tmp_path, port)],
        env=here,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert f"http://emulator:{port}" in done.stderr
    urls = re.findall(r"http://localhost:(\d+)/qr/1/voucher/\w+", done.stdout)
    assert urls == [str(port)] * 3
    for name in ("emulator", "localhost", "127.0.0.1"):
        (batch,) = batches(port, name)
        assert batch["issued"] == 3
    with pytest.raises(urllib.error.HTTPError, match="403"):
        batches(port, "evil.example")


def batches(port: int, name: str) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/_emulator/batches", headers={"Host": f"{name}:{port}"}
    )
    with urllib.request.urlopen(request) as answer:
        return orjson.loads(answer.read())


@pytest.mark.usefixtures("emulator")
def test_health(tmp_path: Path, port: int, here: dict[str, str]) -> None:
    """The check passes, and by then the credentials are there."""
    kind, python, *rest = EMULATOR["healthcheck"]["test"]
    assert (kind, python) == ("CMD", "python")
    command = [sys.executable, *(placed(part, tmp_path, port) for part in rest)]
    subprocess.run(command, env=here, check=True, timeout=60)
    assert (tmp_path / "emulator.env").exists()


@pytest.mark.usefixtures("emulator")
def test_application_without_the_variable(tmp_path: Path, port: int, here: dict[str, str]) -> None:
    """Without the word of the file, the command refuses, and says which variable is missing."""
    (script,) = APPLICATION["command"]
    script = placed(script, tmp_path, port).replace("exec", "unset RM_ALLOW_PLAIN_HTTP; exec")
    done = subprocess.run(
        [*APPLICATION["entrypoint"], script],
        env=here,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert f"RM_ALLOW_PLAIN_HTTP=emulator:{port} " in done.stderr


def test_both_see_one_folder_as_one_user() -> None:
    """The file is its owner's only, so both run as the same user, to whom the folder belongs."""
    mounted = [service["volumes"] for service in (EMULATOR, APPLICATION)]
    assert mounted == [["credentials:/credentials"], ["credentials:/credentials:ro"]]
    assert set(COMPOSE["volumes"]) == {"credentials"}
    assert {EMULATOR["build"], APPLICATION["build"]} == {"."}
    image = (FOLDER / "Dockerfile").read_text()
    assert "--owner=emulator" in image
    assert "USER emulator" in image
    assert EMULATOR["ports"] == ["127.0.0.1:8000:8000"]  # nobody's but this machine's
