"""The pages that are made from the package keep up with it."""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from typing import Any

import attrs
import orjson
import pytest
from support.files import DOCS, KEY_FILE
from typer import Context
from typer.main import get_command

import rm_voucher
from rm_voucher import Credentials, OutcomeUnknownError, exceptions
from rm_voucher.cli.app import app
from rm_voucher.cli.options import flow_policy
from rm_voucher.emulator import Check, Emulator, Fault, FaultPlan, Guesses, Window
from rm_voucher.emulator.routes import OPERATIONS
from rm_voucher.transport import base
from rm_voucher.transport.memory import MemoryTransport
from rm_voucher.wire.error_codes import ERROR_CODES


def test_error_codes_page_is_the_table():
    """docs/error-codes.md is what `python docs/error_codes_page.py` writes today."""
    page = runpy.run_path(str(DOCS / "error_codes_page.py"))["page"]()
    assert (DOCS / "error-codes.md").read_text() == page
    for code, info in ERROR_CODES.items():
        row = f"| `{code}` | {info.code_class.value} | `{info.error.__name__}` | {info.hint} |"
        assert row in page.splitlines()


def test_error_tree_is_that_of_the_module():
    """docs/handle-errors.md draws the tree that the exceptions' docstring draws."""
    page = (DOCS / "handle-errors.md").read_text()
    (drawn,) = re.findall(r"```\n(VoucherError\n.*?)```", page, re.S)
    tree = [line.strip() for line in exceptions.__doc__.splitlines()]
    assert [line.strip() for line in drawn.splitlines()] == tree[
        tree.index("VoucherError") : tree.index("└── ServerError") + 1
    ]


def test_both_pages_say_how_long_the_command_waits():
    """They told an hour and two minutes."""
    assert flow_policy(None).max_outage_wait_s == 3600
    rate, bulk = ((DOCS / name).read_text() for name in ("rate-and-failures.md", "bulk-issue.md"))
    assert "`FlowPolicy(max_outage_wait_s=3600)`, which is what `rm-voucher issue` does" in rate
    assert "It waits an hour for a server" in bulk


REFERENCE = "".join(path.read_text() for path in sorted((DOCS / "reference").glob("*.md")))


@pytest.mark.parametrize(
    "module",
    [
        "rm_voucher.transport.aiohttp",
        "rm_voucher.transport.memory",
        "rm_voucher.transport.base",
        "rm_voucher.emulator",
        "rm_voucher.probe",
        "rm_voucher.ledger",
        "rm_voucher.testing",
        "rm_voucher.webhooks",
        "rm_voucher.webhooks.aiohttp",
        "rm_voucher.webhooks.asgi",
        "rm_voucher.signing",
        "rm_voucher.converters",
        "rm_voucher.wire.error_codes",
        "rm_voucher.worker",
        "rm_voucher.otel",
        "rm_voucher.shared",
    ],
)
def test_reference_takes_each_module_whole(module):
    """Every name of `__all__` appears: the module is listed, and nothing of it is left out.

    The build itself (`nox -s docs`) fails when a name is missing all the same.
    """
    (options,) = re.findall(rf"^\.\. automodule:: {module}\n((?:   :.*\n)*)", REFERENCE, re.M)
    shown_above = "   :exclude-members: Request, Response, Transport\n"  # the root shows them
    assert options == (shown_above if module == "rm_voucher.transport.base" else "")


def test_reference_takes_each_name_of_the_root():
    """Each is on the page of the module that it comes from, and on no other."""
    taken = " ".join(re.findall(r"^\.\. root-names:: (.*)", REFERENCE, re.M)).split()
    assert len(taken) == len(set(taken))
    assert set(rm_voucher._HOMES) == set(taken)


def test_home_page_shows_what_its_program_prints(tmp_path):
    """The first thing that somebody sees is true."""
    page = (DOCS / "index.md").read_text()
    (shown,) = re.findall(r"```text\n(.*?)```", page, re.S)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block("python\n", page)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (done.stdout, done.stderr) == (shown, "")


def test_names_of_the_base_transport_are_those_of_the_root():
    """Why the reference may show them once, with the root."""
    assert set(base.__all__) == {"Request", "Response", "Transport"} <= set(rm_voucher.__all__)


@pytest.mark.parametrize(
    "page", sorted(DOCS.rglob("*.md")), ids=lambda path: str(path.relative_to(DOCS))
)
def test_index_lists_every_page(page):
    """A page that nothing leads to is not read."""
    index = (page.parent / "index.md").read_text()
    assert page.stem == "index" or f"]({page.name})" in index
    assert "](decisions/index.md)" in (DOCS / "index.md").read_text()


@pytest.mark.parametrize("source", sorted(DOCS.glob("images/*.mmd")), ids=lambda path: path.stem)
def test_diagram_is_what_its_text_makes(source):
    """`python docs/diagrams.py` was run after the last change, and a page shows the picture."""
    mark = runpy.run_path(str(DOCS / "diagrams.py"))["mark_of"](source)
    drawn = source.with_suffix(".svg").read_text()
    assert f"<!-- {source.name}, {mark} -->" in drawn
    assert any(f"(images/{source.stem}.svg)" in page.read_text() for page in DOCS.glob("*.md"))


README = (DOCS.parent / "README.md").read_text()
USING = (DOCS / "test-your-code.md").read_text()
CALLBACKS = (DOCS / "callbacks.md").read_text()
EMULATOR = (DOCS / "emulator.md").read_text()


def block(start, text=USING):
    """Return the one fenced block whose info string and text begin like this."""
    found = [one for one in re.findall(r"```(.*?)```", text, re.S) if one.startswith(start)]
    assert len(found) == 1
    return found[0].partition("\n")[2]


def table(title):
    """Return the cells of the first table under a heading."""
    lines = EMULATOR.partition(f"# {title}\n")[2].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    assert len(rows) > 1
    return rows


@pytest.mark.parametrize(
    ("page", "tests"),
    [
        pytest.param(README, 1, id="README.md"),
        pytest.param(USING, 4, id="test-your-code.md", marks=pytest.mark.long),
        pytest.param(CALLBACKS, 1, id="callbacks.md", marks=pytest.mark.long),
    ],
)
def test_test_file_on_the_page_passes(page, tests, tmp_path):
    """The test file that is shown passes as it stands, without a conftest."""
    (tmp_path / "test_shown.py").write_text(block("python test", page))
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"]  # pytest-asyncio wants it
    done = subprocess.run(
        [*command, "--rootdir", tmp_path, "test_shown.py"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"},
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"^{tests} passed in ", done.stdout, re.M)


@pytest.fixture
def served(tmp_path):
    """The page's own command is running in this directory. Its standard error."""
    program, *arguments = shlex.split(block("sh\nrm-voucher emulator"))
    assert program == "rm-voucher"
    command = [sys.executable, "-m", "rm_voucher.cli", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("Emulator at http://127.0.0.1:")
        yield process.stderr
        process.kill()


@pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("openssl")), reason="curl or openssl is missing"
)
def test_walk_through_with_curl_and_openssl(served, tmp_path):
    """The shell's client gets a token, signs with and without a body, and sees what it did."""
    done = subprocess.run(
        ["sh", "-euc", block("sh\n. ./emulator.env")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "no_proxy": "*"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == block("text\nVOID").strip()
    (redeemed,) = orjson.loads((tmp_path / "redeemed.json").read_bytes())["item"]
    assert redeemed["status"] == "REDEEMED"
    void = orjson.loads((tmp_path / "void.json").read_bytes())["item"]
    assert (void["status"], void["usedAt"]) == ("VOID", "2026-11-20T10:00:00.123456Z")
    assert [served.readline() for _ in range(2)] == [
        "POST /v1/token 200\n",
        "POST /v3/voucher-batch/TEA/issue 200\n",
    ]


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is missing")
def test_merchant_of_a_test_run_with_curl(served, tmp_path):
    """It is made, begins anew, and is dropped; its client has what it needs."""
    script = ". ./emulator.env\n" + block('sh\ncurl -d \'{"name"', EMULATOR).replace(
        "curl ", "curl -sS --fail-with-body "
    )
    done = subprocess.run(
        ["sh", "-euc", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "no_proxy": "*"},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}{}", "")
    made = orjson.loads((tmp_path / "merchant.json").read_bytes())
    assert Credentials.from_env(made["variables"]).client_id == made["client_id"]


async def what_an_issue_meets(fault):
    """Return what the first request of an issue did, and what the client made of it."""
    key = KEY_FILE.read_bytes()
    emulator = Emulator(
        seed=1, credentials=Credentials("id", "secret", key), batches={"TEA": 5}, clock=lambda: 1e9
    )
    done = []

    def answer(request):
        try:
            return emulator.handle(request)
        finally:
            if request.operation == "issue":
                done.append(len(emulator.issued("TEA")))

    async def sleep(seconds):
        emulator.advance(seconds)

    client = emulator.client(
        transport=MemoryTransport(answer), runtime=attrs.evolve(emulator.runtime, sleep=sleep)
    )
    await client.batches()  # so that the token is there
    if fault is Fault.CLOSED:
        emulator.faults = FaultPlan(windows=[Window(fault=fault, start_s=0, length_s=1)])
    else:
        emulator.fail_next("issue", fault)
    try:
        voucher = await client.issue("TEA")
    except OutcomeUnknownError:
        word = "unknown"
    else:
        assert voucher.code in emulator.issued("TEA")
        word = "as usual" if len(done) == 1 else "sent again"
    work = "yes" if done[0] else "no"
    before = len(emulator.issued("TEA"))
    emulator.advance(emulator.faults.late_s)
    return "later" if len(emulator.issued("TEA")) > before else work, word


async def test_faults_on_the_page_do_what_it_says():
    """Each fault is in the table, with what becomes of an issue that meets it."""
    said = {row[0].strip("`"): (row[2], row[3]) for row in table("Faults")}
    assert said == {str(fault): await what_an_issue_meets(fault) for fault in Fault}


def test_plan_and_operations_on_the_page():
    """The page has each field of a plan with its default, and each operation."""
    plain = {"rate": 0.0, "retry_after_s": 1, "late_s": 2.0, "slow_body_s": 1.0}
    plain |= {"stall_s": 120.0, "listing_delay_s": 5.0}
    said = {row[0].strip("`"): row[2] for row in table("The plan")}
    assert list(said) == [field.name for field in attrs.fields(FaultPlan)]
    assert {name: getattr(FaultPlan(), name) for name in plain} == plain
    assert {name: float(said[name]) for name in plain} == plain
    (names,) = re.findall(r"The operations are (.*?)\. ", EMULATOR, re.S)
    assert re.findall(r"`([\w\s]+)`", names.replace("\n", " ")) == list(OPERATIONS)


def test_number_of_faults_in_the_readme():
    """The README says how many kinds of faults there are."""
    assert f"{len(Fault)} kinds of faults" in README


def test_checks_on_the_page():
    """The page has each check that can be disabled, and codes that exist."""
    rows = table("Checks")
    assert [row[0].strip("`") for row in rows] == list(Check)
    codes = {code for row in rows for code in re.findall(r"`(\w+)`", row[2])}
    assert {code.upper().replace("_", "") for code in codes} <= {
        code.upper().replace("_", "") for code in ERROR_CODES
    }


def test_guesses_on_the_page():
    """The page has each field of Guesses, once, and no other."""
    options = [option for row in table("Documented, and guessed") for option in row[2].split(", ")]
    said = [option.strip("`").removeprefix("Guesses.") for option in options if "Guesses" in option]
    assert sorted(said) == sorted(field.name for field in attrs.fields(Guesses))


def test_options_on_the_page():
    """The page has each option of `rm-voucher emulator`."""
    said = [name for row in table("The command") for name in re.findall(r"`(--[a-z-]+)", row[0])]
    commands: Any = get_command(app)
    options = commands.get_command(Context(commands), "emulator").params
    assert sorted(said) == sorted(option.opts[0] for option in options)


def test_http_api_page_is_the_description():
    """docs/openapi.json and docs/http-api.md are what `python docs/http_api_page.py` writes."""
    made = runpy.run_path(str(DOCS / "http_api_page.py"))
    assert (DOCS / "openapi.json").read_text() == made["document"]()
    assert (DOCS / "http-api.md").read_text() == made["page"]()
