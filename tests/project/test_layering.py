"""The wings of docs/architecture.md, held against the imports."""

import ast
import functools
import graphlib
import re
import sys
from pathlib import Path

import pytest
from support.files import DOCS

import rm_voucher

PACKAGE = Path(rm_voucher.__file__).parent

# Lowest first. A file imports from its own wing and from wings below it; a wing is a folder, or
# the files at the root that stand on one level.
WINGS = [
    {"_version"},
    {"extras", "jsontext", "text"},
    {"decode_error"},
    {"redaction"},
    {"travel"},
    {"models"},
    {"exceptions"},
    {"arguments", "files"},
    {"qr", "runtime", "settings"},
    {"worth"},
    {"converters", "database", "profile"},
    {"shared"},
    {"signing"},
    {"transport"},
    {"wire"},
    {"calls"},
    {"auth", "otel"},
    {"service"},
    {"ledger", "webhooks", "emulator"},
    {"bulk", "probe"},
    {"worker"},
    {"tables"},
    {""},  # the face of the package
    {"testing", "cli"},
    {"__main__"},
]
# Who may import what from outside; all else comes from the standard library.
EVERYWHERE = {"attrs", "yarl"}
ELSEWHERE = {
    "jsontext": {"msgspec"},
    "converters": {"cattrs"},
    "calls.retry": {"tenacity"},
    "signing.process": {"cryptography"},
    "signing.keys": {"cryptography"},
    "signing.rsa": {"cryptography"},
    "transport.aiohttp": {"aiohttp"},
    "transport.foreign": {"aiohttp"},
    "transport.sending": {"aiohttp"},
    "otel": {"opentelemetry"},
    "qr": {"segno"},
    "emulator.keys": {"cryptography"},
    "emulator.customer.front": {"aiohttp"},
    "emulator.pages": {"aiohttp"},
    "emulator.scenario.read": {"cattrs"},
    "emulator.server": {"aiohttp"},
    "database.accounts": {"sqlalchemy"},
    "database.connections": {"sqlalchemy"},
    "database.database": {"sqlalchemy"},
    "database.driven": {"sqlalchemy"},
    "database.engine": {"sqlalchemy"},
    "database.migrations": {"sqlalchemy"},
    "database.pipeline": {"psycopg", "sqlalchemy"},
    "database.postgres": {"psycopg", "sqlalchemy"},
    "database.scope": {"sqlalchemy"},
    "database.statistics": {"sqlalchemy"},
    "database.troubles": {"sqlalchemy"},
    "database.transaction": {"sqlalchemy"},
    "ledger.sql.schema": {"sqlalchemy"},
    "ledger.sql.shared": {"sqlalchemy"},
    "ledger.sql.statements": {"sqlalchemy"},
    "ledger.sql.store": {"sqlalchemy"},
    "ledger.sql.unit_of_work": {"sqlalchemy"},
    "webhooks.aiohttp": {"aiohttp"},
    "webhooks.sql.schema": {"sqlalchemy"},
    "webhooks.sql.statements": {"sqlalchemy"},
    "webhooks.sql.store": {"sqlalchemy"},
    "shared.redis": {"redis"},
    "shared.sql": {"sqlalchemy"},
    "worker.endpoint": {"aiohttp"},
    "worker.faststream": {"faststream"},
    "worker.metrics": {"prometheus_client"},
    "worker.nats": {"faststream", "nats"},
    "worker.outbox": {"sqlalchemy"},
    "worker.rabbitmq": {"aio_pika", "faststream"},
    "worker.redis": {"faststream", "redis"},
    "tables": {"sqlalchemy"},
    "testing.plugin": {"pytest"},
    "travel": {"pydantic_core"},
    "cli": {"rich", "typer"},
    "cli.arguments": {"typer"},
    "cli.app": {"typer"},
    "cli.campaign.commands": {"typer"},
    "cli.asking": {"typer"},
    "cli.common": {"typer"},
    "cli.failures": {"typer"},
    "cli.issue": {"typer"},
    "cli.lazy": {"typer"},
    "cli.ledger": {"typer"},
    "cli.login": {"typer"},
    "cli.logins": {"keyring", "platformdirs"},
    "cli.options": {"typer"},
    "cli.plan": {"typer"},
    "cli.prints.commands": {"typer"},
    "cli.prints.fonts": {"fontTools"},
    "cli.prints.pdf": {"PIL", "fpdf", "uharfbuzz"},
    "cli.probe": {"typer"},
    "cli.profile_option": {"typer"},
    "cli.tables.csv_reader": {"charset_normalizer"},
    "cli.tables.write": {"xlsxwriter"},
    "cli.tables.xlsx_reader": {"openpyxl"},
    "cli.emulator": {"typer"},
    "cli.codes.report": {"typer"},
    "cli.db": {"typer"},
    "cli.doctor.command": {"typer"},
    "cli.listings": {"typer"},
    "cli.member": {"typer"},
    "cli.one": {"typer"},
    "cli.webhook": {"aiohttp", "typer"},
    "cli.worker": {"typer"},
}


def modules_in(package):
    """Return the files of a package by their module's name, without the package's own."""
    files = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        files[".".join(part for part in parts if part != "__init__")] = path
    return files


@functools.cache
def imported(path):
    """Return each module or name that a file imports, in functions and under TYPE_CHECKING too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def ours(name, files):
    """Return the module of ours that an imported name is, or is in; None for another's."""
    top, _, inner = name.partition(".")
    if top != "rm_voucher":
        return None
    while inner and inner not in files:
        inner = inner.rpartition(".")[0]
    return inner


def graph_of(files):
    """Return, for each module, the modules of ours that it imports."""
    graph = {}
    for module, path in files.items():
        targets = {ours(name, files) for name in imported(path)}
        graph[module] = targets - {None, module}
    return graph


def wing_of(module):
    """Return the number of a module's wing, and the wing's name: a folder, or a file."""
    name = module.partition(".")[0]
    found = [number for number, wing in enumerate(WINGS) if name in wing]
    assert found, f"{module} is in no wing: give {name!r} a place in WINGS"
    return found[0], name


def upward(graph):
    """Return the imports that do not point to the own wing or to one below it."""
    wrong = []
    for module, targets in graph.items():
        number, name = wing_of(module)
        for target in targets:
            below, other = wing_of(target)
            if other != name and below >= number:
                wrong.append(f"{module} imports {target}")
    return wrong


def circle(graph):
    """Return the modules of a circle, or nothing. A package's face is a file like any other."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as exc:
        return exc.args[1]
    return []


FILES = modules_in(PACKAGE)


def test_every_wing_is_there():
    """The list names what the package has, and nothing else."""
    assert set().union(*WINGS) == {module.partition(".")[0] for module in FILES}


def test_imports_point_downward():
    """A file imports its own wing and wings below it, typing-only imports counted."""
    assert upward(graph_of(FILES)) == []


def test_no_file_is_in_a_circle():
    """No file imports itself by way of others, typing-only imports counted."""
    assert circle(graph_of(FILES)) == []


@pytest.mark.parametrize(
    ("module", "line", "is_upward"),
    [
        ("wire.requests", "from rm_voucher.service.client import VoucherClient", True),
        ("calls.retry", "def late():\n    import rm_voucher.auth.store", True),
        ("database.engine", "if TYPE_CHECKING:\n    from rm_voucher import ledger", True),
        ("signing.signature", "from rm_voucher import RetryPolicy", True),
        ("ledger.memory", "from rm_voucher.webhooks.memory import MemoryEventStore", True),
        ("calls.call", "if TYPE_CHECKING:\n    from rm_voucher.calls.caller import Caller", False),
    ],
)
def test_an_import_upward_is_seen(module, line, is_upward, tmp_path):
    """Each kind of import that is wrong fails one of the two tests above."""
    added = tmp_path / "added.py"
    added.write_text(FILES[module].read_text() + f"\n{line}\n")
    graph = graph_of(FILES | {module: added})
    assert bool(upward(graph)) is is_upward
    assert is_upward or circle(graph)


@pytest.mark.parametrize("module", sorted(FILES))
def test_foreign_imports_stay_in_their_rooms(module):
    """A dependency is known to the modules that exist for it, and to no other."""
    allowed = EVERYWHERE | ELSEWHERE.get(module, set()) | {"rm_voucher"}
    for name in imported(FILES[module]):
        top = name.split(".")[0]
        assert top in allowed or top in sys.stdlib_module_names, f"{module} imports {name}"


def drawn():
    """Return the modules on the map of docs/architecture.md, from its top to its bottom."""
    text = (DOCS / "architecture.md").read_text()
    tree = re.search(r"```\nrm_voucher/\n(.*?)```", text, re.DOTALL)
    assert tree is not None
    folders: list[str] = []
    modules: list[str] = []
    for indent, name in re.findall(r"^( *)([\w/]+(?:\.py)?)", tree[1], re.MULTILINE):
        del folders[len(indent) // 2 - 1 :]
        if name.endswith("/"):
            folders.append(name.strip("/"))
        else:
            modules.append(".".join([*folders, name.removesuffix(".py")]))
    return modules


def test_map_in_the_docs_is_this_map():
    """docs/architecture.md draws each file, below all that it imports."""
    modules = drawn()
    assert modules.pop(0) == "__init__"  # the package's face, which imports most
    faces = {module for module, path in FILES.items() if path.name == "__init__.py"}
    assert sorted(modules) == sorted(set(FILES) - faces)
    place = {module: number for number, module in enumerate(modules)}
    graph = graph_of(FILES)
    wrong = [
        f"{module} imports {target}"
        for module in modules
        for target in graph[module] - faces
        if place[target] > place[module]
    ]
    assert wrong == []
