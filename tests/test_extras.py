"""What needs an extra says which, in a sentence, where the extra is not installed."""

import json
import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

import rm_voucher

PACKAGE = Path(rm_voucher.__file__).parent
# What each extra brings that nothing else needs. `all` brings nothing of its own.
BRINGS = {
    "cli": ["rich", "segno", "typer"],
    "otel": ["opentelemetry"],
    "postgres": ["psycopg"],
    "print": ["fpdf", "uharfbuzz"],
    "redis": ["redis"],
    "sql": ["sqlalchemy"],
    "tables": ["charset_normalizer", "openpyxl", "xlsxwriter"],
    "worker": ["aio_pika", "faststream", "nats", "prometheus_client"],
}
# Modules that are imported by name, and the extra that each names where all of these are missing.
MODULES = {
    "rm_voucher.database": "sql",
    "rm_voucher.ledger.sql.store": "sql",
    "rm_voucher.otel": "otel",
    "rm_voucher.qr": "cli",
    "rm_voucher.shared.redis": "redis",
    "rm_voucher.shared.sql": "sql",
    "rm_voucher.tables": "sql",
    "rm_voucher.webhooks.sql.store": "sql",
    "rm_voucher.worker": "worker",
    "rm_voucher.worker.metrics": "worker",
    "rm_voucher.worker.nats": "worker",
    "rm_voucher.worker.rabbitmq": "worker",
    "rm_voucher.worker.redis": "worker",
}
LEDGER, CALLBACKS = "rm_voucher.ledger", "rm_voucher.webhooks"
SHARED, WORKER = "rm_voucher.shared", "rm_voucher.worker"
TABLES = "rm_voucher.cli.tables"
# What is missing, whose function is called, and the extra that it names.
DOORS = [
    ("sqlalchemy", LEDGER, "Ledger.open('sqlite:///x.db')", "sql"),
    ("sqlalchemy", LEDGER, "Ledger.open('postgresql://u@h/x')", "postgres"),
    ("psycopg", LEDGER, "Ledger.open('postgresql://u@h/x')", "postgres"),
    ("psycopg", "rm_voucher.database", "SqlDatabase('postgresql://u@h/x')", "postgres"),
    ("sqlalchemy", CALLBACKS, "open_event_store('sqlite:///x.db')", "sql"),
    ("sqlalchemy", CALLBACKS, "open_event_store('postgresql://u@h/x')", "postgres"),
    ("psycopg", CALLBACKS, "open_event_store('postgresql://u@h/x')", "postgres"),
    ("sqlalchemy", SHARED, "open_shared_store('sqlite:///x.db')", "sql"),
    ("sqlalchemy", SHARED, "open_shared_store('postgresql://u@h/x')", "postgres"),
    ("psycopg", SHARED, "open_shared_store('postgresql://u@h/x')", "postgres"),
    ("redis", SHARED, "open_shared_store('redis://h')", "redis"),
    ("psycopg", WORKER, "Outbox('postgresql://u@h/x')", "postgres"),
    ("faststream", WORKER, "open_broker('amqp://h')", "worker"),
    ("nats", WORKER, "open_broker('nats://h')", "worker"),
    ("redis", WORKER, "open_broker('redis://h')", "worker"),
    ("xlsxwriter", f"{TABLES}.write", "XlsxWriter(None, [], [])", "tables"),
    ("openpyxl", f"{TABLES}.xlsx_reader", "XlsxReader._load(None, data_only=True)", "tables"),
    (
        "charset_normalizer",
        f"{TABLES}.csv_reader",
        "CsvReader._find_old_encoding(None, 1, b'')",
        "tables",
    ),
]

RUN = """
import json, sys
hidden, statements = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(hidden))
answers = []
for statement in statements:
    try:
        exec(statement, {})
    except Exception as exc:
        answers.append([[kind.__name__ for kind in type(exc).__mro__], str(exc)])
    else:
        answers.append([[], ""])
print(json.dumps(answers))
"""


def without(hidden, statements):
    """Return what each statement raises where these modules are not installed: classes, text."""
    given = json.dumps([hidden, statements])
    done = subprocess.run(
        [sys.executable, "-c", RUN, given], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def sentence(extra):
    return re.compile(rf"[\w. ]+ needs the extra '{extra}': pip install 'rm-voucher\[{extra}\]'\.")


def imported_by_name():
    """Return the package's modules, but for the command's own and pytest's."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if parts[1] not in ("cli", "__main__") and parts[-1] != "plugin":
            yield name


def test_every_extra_is_here():
    """A new extra gets a row."""
    assert set(metadata("rm-voucher").get_all("Provides-Extra", [])) == {*BRINGS, "all"}


# What `tables` brings is imported when a file is at hand.
@pytest.mark.long
@pytest.mark.parametrize("extra", [name for name in BRINGS if name != "tables"])
def test_module_that_needs_an_extra_names_it(extra):
    """Each module can be imported without it, or raises an ImportError that says what to do."""
    names = [*imported_by_name(), "rm_voucher.cli.prints.pdf"]
    answers = without(BRINGS[extra], [f"import {name}" for name in names])
    named = set()
    for name, (kinds, text) in zip(names, answers, strict=True):
        if kinds:
            assert "ImportError" in kinds, (name, text)
            assert any(sentence(one).fullmatch(text) for one in BRINGS), (name, text)
            named.add(text.split("'")[1])
    assert extra in named


def test_module_names_the_extra_that_it_is_for():
    """Also where no extra is installed at all."""
    everything = [name for names in BRINGS.values() for name in names]
    answers = without(everything, [f"import {name}" for name in MODULES])
    for (name, extra), (kinds, text) in zip(MODULES.items(), answers, strict=True):
        assert "ImportError" in kinds, name
        assert sentence(extra).fullmatch(text), (name, text)


@pytest.mark.parametrize("hidden", sorted({row[0] for row in DOORS}))
def test_function_that_needs_an_extra_names_it(hidden):
    """It raises a `ConfigurationError`, as for every other setting that can't be."""
    doors = [row for row in DOORS if row[0] == hidden]
    answers = without([hidden], [f"from {module} import *\n{call}" for _, module, call, _ in doors])
    for (_, _, call, extra), (kinds, text) in zip(doors, answers, strict=True):
        assert "ConfigurationError" in kinds, (call, text)
        assert sentence(extra).fullmatch(text), (call, text)
