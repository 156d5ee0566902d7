"""The map of docs/architecture.md, held against the imports."""

import ast
import re
import sys
from pathlib import Path

import pytest

import rm_voucher

PACKAGE = Path(rm_voucher.__file__).parent
DOCS = Path(__file__).parent.parent / "docs"

# A module may import from layers below its own; within a layer only inside one subpackage. Within
# L0, `_version`, `exceptions` and then `frames` stand below the others; within L1, `sql_engine` and
# then `storage` above; within L2, `protocol` above; within L4, `call` and then `caller` below and
# `client` above; within L6, `bulk_run` and `bulk` above.
LAYERS = [
    {"_version", "exceptions"},
    {"frames"},
    {"error_codes", "models", "pace", "settings", "signer_process", "structuring"},
    {
        "converters",
        "flow",
        "group_commit",
        "signer_worker",
        "signing",
        "retry",
        "token_store",
        "transport.base",
        "transport",
    },
    {"sql_engine"},
    {"storage"},
    {"building", "parsing", "hooks", "signers", "transport.memory", "transport.aiohttp"},
    {"protocol"},
    {"auth", "pager", "recovery"},
    {"call"},
    {"caller"},
    {"member", "redemption"},
    {"client"},
    {
        "emulator",
        "emulator.app",
        "emulator.callbacks",
        "emulator.control",
        "emulator.engine",
        "emulator.faults",
        "emulator.gate",
        "emulator.guesses",
        "emulator.keys",
        "emulator.records",
        "emulator.reply",
        "emulator.request_log",
        "emulator.routes",
        "emulator.server",
        "emulator.state",
        "emulator.stock",
        "emulator.timeline",
        "ledger",
        "ledger.base",
        "ledger.changes",
        "ledger.commands",
        "ledger.finishing",
        "ledger.guard",
        "ledger.matching",
        "ledger.memory",
        "ledger.reconcile",
        "ledger.records",
        "ledger.schema",
        "ledger.sending",
        "ledger.settling",
        "ledger.sql",
        "ledger.sql_unit",
        "ledger.statements",
        "ledger.transitions",
        "ledger.unit",
        "otel",
        "webhooks",
        "webhooks.aiohttp",
        "webhooks.asgi",
        "webhooks.events",
        "webhooks.memory",
        "webhooks.poller",
        "webhooks.router",
        "webhooks.schema",
        "webhooks.sql",
        "webhooks.statements",
        "webhooks.store",
        "webhooks.verify",
    },
    {"bulk_ledger", "bulk_results"},
    {"bulk_run"},
    {"bulk"},
    {
        "testing",
        "cli",
        "cli.__main__",
        "cli.app",
        "cli.connect",
        "cli.issue",
        "cli.ledger",
        "cli.options",
        "cli.output",
        "cli.progress",
        "cli.recipients",
        "cli.serve",
        "cli.webhook",
    },
]
NAMES = [
    "L0",
    "L0",
    "L0",
    "L1",
    "L1",
    "L1",
    "L2",
    "L2",
    "L3",
    "L4",
    "L4",
    "L4",
    "L4",
    "L5",
    "L6",
    "L6",
    "L6",
    "L7",
]
# Who may import what from outside; all else comes from the standard library.
EVERYWHERE = {"attrs", "orjson", "yarl"}
ELSEWHERE = {
    "converters": {"cattrs"},
    "retry": {"tenacity"},
    "signer_process": {"cryptography"},
    "signing": {"cryptography"},
    "transport.aiohttp": {"aiohttp"},
    "otel": {"opentelemetry"},
    "emulator.keys": {"cryptography"},
    "emulator.server": {"aiohttp"},
    "sql_engine": {"sqlalchemy"},
    "storage": {"sqlalchemy"},
    "ledger.schema": {"sqlalchemy"},
    "ledger.sql": {"sqlalchemy"},
    "ledger.sql_unit": {"sqlalchemy"},
    "ledger.statements": {"sqlalchemy"},
    "webhooks.aiohttp": {"aiohttp"},
    "webhooks.schema": {"sqlalchemy"},
    "webhooks.sql": {"sqlalchemy"},
    "webhooks.statements": {"sqlalchemy"},
    "testing": {"pytest"},
    "cli": {"rich", "typer"},
    "cli.app": {"typer"},
    "cli.ledger": {"typer"},
    "cli.options": {"typer"},
    "cli.progress": {"rich"},
    "cli.serve": {"typer"},
    "cli.webhook": {"aiohttp", "typer"},
}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


def imports_of(path):
    """Every imported module, in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                yield f"{node.module}.{alias.name}" if node.module == "rm_voucher" else node.module


def layer_of(module):
    return next(number for number, layer in enumerate(LAYERS) if module in layer)


def as_module(name):
    """Return the module of ours that an import names; names that the root exports are the root."""
    inner = name.removeprefix("rm_voucher").removeprefix(".")
    return inner if any(inner in layer for layer in LAYERS) else ""


ALL = dict(modules())


def test_every_module_is_on_the_map():
    """A new module gets its place on the map before it gets in."""
    assert set(ALL) == set().union(*LAYERS) | {""}


@pytest.mark.parametrize("module", sorted(set(ALL) - {""}))
def test_imports_point_downward(module):
    """Imports point to layers below; within a layer only inside one subpackage."""
    for name in imports_of(ALL[module]):
        if name.split(".")[0] != "rm_voucher":
            continue
        target = as_module(name)
        if target == "":
            assert layer_of(module) == len(LAYERS) - 1, f"{module} imports from the root"
            continue
        same_package = "." in module + target and module.split(".")[0] == target.split(".")[0]
        below = layer_of(target) < layer_of(module)
        assert below or (same_package and layer_of(target) == layer_of(module)), (
            f"{module} imports {target}"
        )


@pytest.mark.parametrize("module", sorted(ALL))
def test_foreign_imports_stay_in_their_rooms(module):
    """A dependency is known to the modules that exist for it, and to no other."""
    allowed = EVERYWHERE | ELSEWHERE.get(module, set()) | {"rm_voucher"}
    for name in imports_of(ALL[module]):
        top = name.split(".")[0]
        assert top in allowed or top in sys.stdlib_module_names, f"{module} imports {name}"


def test_map_in_the_docs_is_this_map():
    """docs/architecture.md names the same modules on the same layers."""
    text = (DOCS / "architecture.md").read_text()
    drawn = re.search(r"```\nL0.*?```", text, re.DOTALL)[0].strip("`\n")
    found, current = {}, ""
    for line in drawn.splitlines():
        label, name = re.match(r"(L\d)?\s*([\w/]+(?:\.py)?)", line).groups()
        if re.match(r"(L\d)?\s{1,7}\S", line):
            current = label or current
            found[name.removesuffix(".py").replace("/", ".").removesuffix(".")] = current
    expected = {
        module.removesuffix(".__main__"): name
        for layer, name in zip(LAYERS, NAMES, strict=True)
        for module in layer
        if not module.startswith(("cli.", "emulator.", "ledger.", "webhooks."))
        and module != "transport"
    }
    assert found == expected


@pytest.mark.parametrize(
    ("first", "known_below"),  # as a type, or, by `open`, once it runs
    [
        ("emulator.app", {"emulator.app"}),
        ("ledger.sql", {"ledger.base", "ledger.sql"}),
        ("webhooks.aiohttp", {"webhooks.sql"}),
    ],
)
def test_files_of_a_room_in_the_docs_are_these(first, known_below):
    """docs/architecture.md lists each file of the room, below those that import it."""
    room, head = first.split(".")
    text = (DOCS / "architecture.md").read_text()
    drawn = re.search(rf"```\n{head}\.py.*?```", text, re.DOTALL)[0]
    listed = [f"{room}.{name}" for name in re.findall(r"^(\w+)\.py ", drawn, re.M)]
    assert sorted(listed) == sorted(name for name in ALL if name.startswith(f"{room}."))
    for number, module in enumerate(listed):
        for name in imports_of(ALL[module]):
            target = as_module(name)
            above = target in listed[: number + 1] and target not in known_below
            assert not above, f"{module} imports {name}"


def test_files_are_small():
    """A file that nears 400 lines is to be split."""
    sizes = {module: len(path.read_text().splitlines()) for module, path in ALL.items()}
    assert {module: size for module, size in sizes.items() if size > 400} == {}
