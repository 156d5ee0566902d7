"""Rule: a terminal, a table and a log obey nobody's text, and no code is altered.

Labels, keys, messages and statuses are the server's, recipients and ids are people's. Every line of
the command passes one of `tell`, `say`, `table_line` and `json_line`.
"""

import ast
import contextlib
import csv
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.answers import ok

from rm_voucher import Response, cli
from rm_voucher.cli.output import table_line
from rm_voucher.cli.screen import say, strangers_are_harmless, tell
from rm_voucher.emulator.reply import Reply

ESCAPES = "\x1b[31mred\x1b]52;c;aGk=\x07\r\u202eback\u2066\x9b2J\u2028"
HARMLESS = "\\x1b[31mred\\x1b]52;c;aGk=\\x07\\r\\u202eback\\u2066\\x9b2J\\u2028"


def is_harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.fixture
def hostile(served):
    """A batch whose label is an attack."""
    served.emulator.add_batch(ESCAPES, key="B", quantity=3)
    return served


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("command", ["batches", "vouchers", "get", "void", "issue"])
def test_answers(rm, hostile, command: str, as_json: bool) -> None:
    """What every command shows is text on its own line."""
    code, _ = hostile.emulator.state.issue("B")
    if command == "batches":
        hostile.emulator.state.stock.batch("B").status = ESCAPES
    subject = {"batches": (), "vouchers": ("B",), "issue": ("B",)}.get(command, (code,))
    ended = rm(command, *subject, *["--json"] * as_json)
    assert ended.code == 0
    assert is_harmless(ended.out)
    assert is_harmless(ended.err)
    if command == "batches" and not as_json:
        assert f"B,{HARMLESS}," in ended.out.replace('"', "")


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("command", [("issue", "B"), ("get", "X"), ("vouchers", "B"), ("batches",)])
@pytest.mark.parametrize("code", [ESCAPES, "SOME_CODE"])
def test_messages(rm, served, command: tuple[str, ...], code: str, as_json: bool) -> None:
    """So is what the server says of an error, in a row, an end and a progress line."""
    refused = Reply(ok({"error": {"code": code, "message": ESCAPES}}, 400))
    reply = served.emulator.reply
    served.emulator.reply = lambda request: (
        reply(request) if request.url.path.endswith("/token") else refused
    )
    ended = rm(*command, *["--json"] * as_json)
    assert ended.code in (1, 4)
    assert ("SOME_CODE" in ended.out + ended.err) is (code == "SOME_CODE")
    assert is_harmless(ended.out)
    assert is_harmless(ended.err)


FORMULAS = ["=1+1", "=1", "+HYPERLINK(A1)", "-2+3|cmd", "@SUM(A1)", "\uff1dA1", "=", "-x"]


@pytest.mark.parametrize("formula", FORMULAS)
def test_formulas(rm, served, formula: str) -> None:
    """A spreadsheet runs no cell, and a reader of CSV has the text behind one apostrophe."""
    served.emulator.add_batch(formula, key="B", quantity=3)
    (row,) = csv.DictReader(io.StringIO(rm("batches").out))
    assert row["label"] == f"'{formula}"


@pytest.mark.parametrize(
    "text", ["-5", "+60123", "-1,234.50", "a=b", "1-2", "", "x@y", "2026-01-01"]
)
def test_no_formulas(text: str) -> None:
    """Numbers, and signs inside a text, stay."""
    assert table_line({"label": text, "x": ""}) == table_line({"recipient": text, "x": ""})


@pytest.mark.parametrize(
    "code", ["=A1", "+A", "-A", "@A", "A+1", "rms@xR43u4bRhUU", "A\u200bB", "é"]
)
def test_codes(rm, served, tmp_path: Path, code: str) -> None:
    """A code is written as it came, in every table: another one is worth nothing."""
    served.emulator.add_batch("Breakfast", key="B", quantity=1)
    served.on_issue = lambda _: ok({"item": {"code": code, "qrUrl": "=1+1"}, "code": "SUCCESS"})
    out = tmp_path / "out.csv"
    assert rm("issue", "B", "--output", out).code == 0
    (row,) = csv.DictReader(io.StringIO(out.read_text()))
    assert row["code"] == code
    assert not row["qr_url"].startswith("=")
    assert next(csv.reader([table_line({"code": code, "label": "=1"})])) == [code, "'=1"]


def test_code_with_an_escape() -> None:
    """But a terminal obeys no code either; what nobody sees in one stays."""
    assert table_line({"code": "A\x1b]52;\x07\u200bB"}) == "A\\x1b]52;\\x07\u200bB\n"


def test_ids_in_a_ledger(rm, served, tmp_path: Path) -> None:
    """The ids of a program's requests are anything; its codes are what they are."""
    import asyncio

    from rm_voucher.ledger import Ledger

    url = f"sqlite:///{tmp_path}/a.db"

    async def submit() -> None:
        async with Ledger.open(url) as ledger:
            await ledger.submit("B", "=cmd|'/C calc'!A0")
            await ledger.submit("B\u202e", "\u202eorder")

    asyncio.run(submit())
    ended = rm("ledger", "export", url)
    assert (ended.code, is_harmless(ended.out)) == (0, True)
    assert ended.out.splitlines()[1:] == [
        "'=cmd|'/C calc'!A0,B,waiting,,,",
        "\\u202eorder,B\\u202e,waiting,,,",
    ]


def test_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is said is one line of text."""
    tell(ESCAPES)
    say(ESCAPES)
    assert capsys.readouterr() == (f"{HARMLESS}\n", f"{HARMLESS}\n")


@contextlib.contextmanager
def unhandled() -> Iterator[logging.Logger]:
    """A logger without a handler, as where logging was not set up; pytest's are with others."""
    logger = logging.getLogger("rm_voucher.test.stranger")
    logger.propagate = False
    with strangers_are_harmless():
        yield logger
    logger.propagate = True


def test_logs(capsys: pytest.CaptureFixture[str]) -> None:
    """What a library logs and nobody handles is a line, too, and only while the command runs."""
    before = logging.lastResort
    with unhandled() as logger:
        logger.warning("unknown status %s", ESCAPES)
        logger.info("not shown")
    assert logging.lastResort is before
    assert capsys.readouterr().err == f"unknown status {HARMLESS}\n"


def test_logged_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback is a line for each of its lines."""
    with unhandled() as logger:
        try:
            raise ValueError(ESCAPES.replace("\r", ""))
        except ValueError:
            logger.exception("a defect")
    err = capsys.readouterr().err
    assert err.startswith("a defect\nTraceback (most recent call last):\n")
    assert is_harmless(err)


@pytest.mark.parametrize(
    "path", sorted(Path(cli.__file__).parent.glob("*.py")), ids=lambda p: p.name
)
def test_every_line_passes(path: Path) -> None:
    """Nothing is printed past the functions that make text harmless."""
    safe = {"csv_line", "json_line", "table_line"}
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call) or path.name in ("output.py", "screen.py"):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        assert name != "print"
        if name == "write_out":
            written = [
                call.func.id
                for call in ast.walk(node.args[0])
                if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
            ]
            is_line = isinstance(node.args[0], ast.Name) and node.args[0].id == "line"
            is_ours = path.name == "db.py"  # SQL of our own tables
            assert is_line or is_ours or safe & set(written), ast.unparse(node)


def test_answer_of_the_wrong_kind(rm, served) -> None:
    """A page of HTML in place of an answer is told without what a terminal would obey in it."""
    served.emulator.add_batch("Breakfast", key="B", quantity=1)
    served.on_issue = lambda _: Response(status=502, body=f"<h1>{ESCAPES}</h1>".encode())
    ended = rm("issue", "B")
    assert ended.code == 4
    assert is_harmless(ended.out + ended.err)
