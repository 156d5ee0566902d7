"""The commands that look, void and list; versions, mistakes and interruptions of all commands."""

import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import attrs
import orjson
import pytest
from support.answers import payload, rm_error
from yarl import URL

from rm_voucher import Response, __version__
from rm_voucher.emulator import Fault
from rm_voucher.emulator.reply import Reply

EMPTY = "The environment is 'memory', an embedded emulator that begins empty.\n"
QR = "https://emulator.invalid/qr/1/voucher/"
EXPIRES = "2050-12-31T23:59:59Z"
VOUCHERS = "code,status,type,amount_sen,assigned_at,redeemed_at,used_at,label,expires_at,qr_url\n"
BATCHES = (
    "key,label,status,type,quantity,balance_quantity,used_quantity,expires_at,expires_days,"
    "is_static\n"
)
ASSIGNED = "2023-11-14T22:13:20Z"  # the clock of the emulator


@pytest.fixture
def code(served) -> str:
    """A voucher of a served batch."""
    served.emulator.add_batch("Breakfast, for two", key="B", quantity=3, amount_sen=1250)
    return str(served.emulator.state.issue("B")[0])


def in_words(code: str, status: str, *used: str) -> list[str]:
    return [
        f"code: {code}",
        f"status: {status}",
        "type: GIFT",
        "amount_sen: 1250",
        "discount_rate_bp: 0",
        "minimum_spend_sen: 0",
        f"expires_at: {EXPIRES}",
        "expires_days: 30",
        "expiry_type: DYNAMIC",
        "label: Breakfast, for two",
        "batch_key: B",
        "origin: SYSTEM",
        f"qr_url: {QR}{code}",
        "image_url: ",
        "is_shipping: False",
        "is_device_redeem: False",
        f"assigned_at: {ASSIGNED}",
        *used,
        f"created_at: {ASSIGNED}",
        f"updated_at: {ASSIGNED}",
    ]


def test_get(rm, code: str) -> None:
    """A voucher is shown a field a line, in the library's names, without what is not set."""
    ended = rm("get", code)
    lines = [line for line in ended.out.splitlines() if not line.startswith("key: ")]
    assert (ended.code, lines, ended.err) == (0, in_words(code, "ISSUED"), "")


def test_get_shows_no_escape_sequence(rm, served) -> None:
    """What a terminal would obey, and the server sent, is shown and not obeyed."""
    served.emulator.add_batch("\x1b[31mred\r\nx", key="E", quantity=1)
    code, _ = served.emulator.state.issue("E")
    assert "label: \\x1b[31mred\\r\\nx\n" in rm("get", code).out


def test_get_json(rm, code: str) -> None:
    """``--json`` shows it by the same names; what nobody documented is in ``extra``."""
    ended = rm("get", code, "--json")
    (voucher,) = ended.json
    assert (ended.code, ended.err) == (0, "")
    extra = voucher.pop("extra")
    assert isinstance(extra, dict)
    assert "isMarketPlace" in extra
    lines = [line for line in in_words(code, "ISSUED") if not line.startswith("image_url")]
    shown = {
        name: str(value) for name, value in voucher.items() if name not in ("key", "image_url")
    }
    assert shown == dict(line.split(": ", 1) for line in lines)
    assert voucher["amount_sen"] == 1250


@pytest.mark.parametrize(
    "used_at", ["2026-05-06T07:08:09.123456Z", "2026-05-06t15:08:09.123456+08:00"]
)
def test_void(rm, code: str, used_at: str) -> None:
    """The void voucher is shown, with the time that was given, in UTC."""
    ended = rm("void", code, "--store-id", "7", "--used-at", used_at)
    lines = [line for line in ended.out.splitlines() if not line.startswith("key: ")]
    used = "used_at: 2026-05-06T07:08:09.123456Z"
    assert (ended.code, lines, ended.err) == (0, in_words(code, "VOID", used), "")


def test_void_sends(rm, served, code: str) -> None:
    """The store and the time go to the server as they were given; the time is now by default."""
    bodies = []
    reply = served.emulator.reply

    def answer(request):
        if request.url.path.endswith("/void"):
            bodies.append(request.body)
        return reply(request)

    served.emulator.reply = answer
    assert rm("void", code, "--store-id", "7", "--used-at", ASSIGNED).code == 0
    assert rm("void", code, "--used-at", "none").code == 1
    before = datetime.now(UTC)
    assert rm("void", code).code == 1
    assert bodies[:2] == [b'{"storeId":"7","usedAt":"2023-11-14T22:13:20Z"}', b"{}"]
    (used_at,) = orjson.loads(bodies[2]).values()
    assert before <= datetime.fromisoformat(used_at) <= datetime.now(UTC)


def test_void_json(rm, code: str) -> None:
    """``--json`` shows the void voucher; a second void is refused with exit 1."""
    ended = rm("void", code, "--json", "--used-at", ASSIGNED)
    assert (ended.code, ended.json[0]["status"], ended.json[0]["used_at"]) == (0, "VOID", ASSIGNED)
    again = rm("void", code, "--json")
    assert again.code == 1
    assert again.json[0]["error"]["code"] == "VOUCHER_NOT_ALLOW_VOID"
    assert again.err.startswith("Error: VOUCHER_NOT_ALLOW_VOID (HTTP 400): ")
    assert code not in again.out + again.err


@pytest.mark.parametrize(
    ("used_at", "sentence"),
    [
        ("tomorrow", "--used-at 'tomorrow' is not an RFC 3339 time."),
        ("2026-05-06T07:08:09", "--used-at '2026-05-06T07:08:09' is not an RFC 3339 time."),
        (
            "2026-02-30T07:08:09Z",
            "--used-at '2026-02-30T07:08:09Z' is not an RFC 3339 time that exists.",
        ),
        ("0001-01-01T00:00:00Z", "--used-at is Go's zero time, which means 'not set'."),
    ],
)
def test_void_bad_time(rm, served, code: str, used_at: str, sentence: str) -> None:
    """A time that isn't one is a mistake, and the voucher is not touched."""
    ended = rm("void", code, "--used-at", used_at)
    assert (ended.code, ended.out, ended.err) == (2, "", f"Error: {sentence}\n")
    assert served.emulator.voucher(code).status == "ISSUED"


def test_void_unknown(rm, served, code: str) -> None:
    """A void whose outcome can't be proven, because no time was sent, is exit 4."""
    served.emulator.fail_next("void", Fault.ERROR_AFTER_COMMIT)
    ended = rm("void", code, "--used-at", "none")
    assert (ended.code, ended.out) == (4, "")
    assert ended.err.startswith("Error: void: server failed after 1 attempt, so whether it was ")
    assert code not in ended.err


def test_void_is_proved_by_its_time(rm, served, code: str) -> None:
    """Without an option, a void whose answer is lost is read back, and known to be ours."""
    served.emulator.fail_next("void", Fault.ERROR_AFTER_COMMIT)
    ended = rm("void", code)
    assert (ended.code, ended.err) == (0, "")
    assert "status: VOID\n" in ended.out


def test_redeem_and_reinstate(rm, served, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A voucher is redeemed, voided, and made usable again, with the PIN of a variable."""
    assert "status: REDEEMED\n" in rm("redeem", code).out
    again = rm("redeem", code)
    assert (again.code, again.out) == (1, "")
    assert again.err.startswith("Error: VOUCHER_REDEEMED (HTTP 400): ")
    assert rm("void", code).code == 0
    monkeypatch.setenv("SHOP_PIN", "123456")
    reinstated = rm("reinstate", code, "--pin", "env:SHOP_PIN", "--reason", "by mistake", "--json")
    assert (reinstated.code, reinstated.json[0]["status"]) == (0, "REDEEMED")
    monkeypatch.setenv("SHOP_PIN", "654321")
    assert rm("void", code).code == 0
    refused = rm("reinstate", code, "--pin", "env:SHOP_PIN")
    assert (refused.code, refused.out) == (1, "")
    assert "The PIN is wrong" in refused.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--pin", "123456"), "--pin is env:NAME, the name of a variable that has the PIN"),
        (("--pin", "env:"), "--pin is env:NAME"),
        (("--pin", "env:MISSING"), "The PIN is in the variable MISSING, which is not set."),
        ((), "only a person at a terminal can say that. A script gives --pin env:NAME"),
    ],
)
def test_pin_is_no_argument(rm, served, code: str, arguments: tuple, sentence: str) -> None:
    """Other users can read a command's arguments: it is in a variable, or typed."""
    ended = rm("reinstate", code, *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert sentence in ended.err
    assert not served.emulator.requests


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("void",), "Give a CODE, or --codes FILE."),
        (("void", "X", "--codes", "x.csv"), "Give a CODE, or --codes FILE."),
        (("get", "X", "--output", "x.csv"), "are about --codes"),
        (("redeem", "X", "--yes"), "are about --codes"),
        (("get", "--codes", "x.csv", "--excel"), "--excel is about --output"),
    ],
)
def test_options_that_go_together(rm, served, arguments: tuple, sentence: str) -> None:
    """Options of a file are no options of a code: exit 2, and nothing is asked."""
    ended = rm(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert sentence in ended.err
    assert not served.emulator.requests


def test_batch(rm, served, code: str) -> None:
    """A batch is shown a field a line, or as JSON by the same names."""
    ended = rm("batch", "B")
    assert (ended.code, ended.err) == (0, "")
    assert {"key: B", "balance_quantity: 2", "expires_days: 30"} <= set(ended.out.splitlines())
    (as_json,) = rm("batch", "B", "--json").json
    assert (as_json["balance_quantity"], as_json["is_static"]) == (2, False)
    missing = rm("batch", "X")
    assert (missing.code, missing.out) == (1, "")
    assert missing.err.startswith("Error: VOUCHER_BATCH_NOT_FOUND")


def test_vouchers(rm, served, code: str) -> None:
    """The vouchers of a batch are CSV, a page after the other; ``--json`` is a line each."""
    others = [served.emulator.state.issue("B")[0] for _ in range(2)]
    served.emulator.state.void(others[1])
    listed = rm("vouchers", "B")
    assert (listed.code, listed.err) == (0, "")
    assert listed.out == VOUCHERS + "".join(
        f'{each},{status},GIFT,1250,{ASSIGNED},,{used},"Breakfast, for two",{EXPIRES},{QR}{each}\n'
        for each, status, used in (
            (code, "ISSUED", ""),
            (others[0], "ISSUED", ""),
            (others[1], "VOID", ASSIGNED),
        )
    )
    as_json = rm("vouchers", "B", "--json")
    assert [(line["code"], line["amount_sen"]) for line in as_json.json] == [
        (each, 1250) for each in (code, *others)
    ]


def test_batches(rm, served, code: str) -> None:
    """The batches are CSV; ``--json`` is a line each."""
    served.emulator.add_batch("Tea", key="TEA", quantity=0)
    listed = rm("batches")
    assert (listed.code, listed.err) == (0, "")
    assert listed.out == (
        f'{BATCHES}B,"Breakfast, for two",COMPLETED,GIFT,3,2,1,{EXPIRES},30,False\n'
        f"TEA,Tea,COMPLETED,GIFT,0,0,0,{EXPIRES},30,False\n"
    )
    as_json = rm("batches", "--json")
    assert [(line["key"], line["balance_quantity"]) for line in as_json.json] == [
        ("B", 2),
        ("TEA", 0),
    ]


def test_documented_payloads(rm, served) -> None:
    """What RM's own documentation shows as answers can be shown."""
    shown = {"/v3/voucher/NAklEfbVdV": "get-voucher", "/v3/voucher-batches": "list-batches"}
    reply = served.emulator.reply

    def answer(request):
        name = shown.get(request.url.path)
        if name is None:
            return reply(request)
        return Reply(Response(status=200, body=orjson.dumps(payload(name))))

    served.emulator.reply = answer
    for arguments in (("get", "NAklEfbVdV"), ("batches",)):
        assert rm(*arguments).code == 0
        assert rm(*arguments, "--json").code == 0


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("arguments", "out", "error"),
    [
        (("get", "X"), "", "VOUCHER_NOT_FOUND"),
        (("void", "X"), "", "VOUCHER_NOT_FOUND"),
        (
            ("vouchers", "B"),
            "",
            "VOUCHER_BATCH_NOT_FOUND",
        ),
        (("batches",), BATCHES, None),
    ],
)
def test_memory_is_empty(rm, arguments: tuple, out: str, error: str | None, as_json: bool) -> None:
    """The embedded emulator is empty, and it says so: nothing is found, exit 1."""
    ended = rm(*arguments, "--environment", "memory", *["--json"] * as_json)
    if not as_json:
        assert ended.out == out
    elif error is None:
        assert ended.out == ""
    else:
        (failed,) = ended.json
        assert failed["error"]["code"] == error
    head, _, rest = ended.err.partition("\n")
    assert head + "\n" == EMPTY
    assert rest.startswith(f"Error: {error} (HTTP 404): " if error else "")
    assert ended.code == (1 if error else 0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("get", "../x"), "code has a slash."),
        (("void", "a\nb"), "code has U+000A at position 2, a character that can't be seen."),
        (("vouchers", ".."), "batch_key is only dots."),
        (("vouchers", "x" * 513), "batch_key is longer than 512 characters."),
    ],
)
def test_refused_before_sending(rm, served, arguments: tuple, sentence: str) -> None:
    """What the client refuses to send is a mistake: exit 2, and no request."""
    ended = rm(*arguments)
    assert ended.code == 2
    assert ended.err == f"Error: refused before sending: {sentence}\n"
    assert not served.emulator.requests


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (rm_error("INVALID_REQUEST", 400), 1),
        (rm_error("VOUCHER_NOT_FOUND", 404), 1),
        (rm_error("INVALID_REQUEST_SIGNATURE", 401), 3),
        (rm_error("NOT_PERMITTED", 403), 1),
    ],
)
def test_server_refuses(rm, served, answer: Response, expected: int) -> None:
    """A refusal of the server is no mistake of the command line: 1, or 3 for the credentials."""
    reply = served.emulator.reply
    served.emulator.reply = lambda request: (
        reply(request) if request.url.path.endswith("/token") else Reply(answer)
    )
    ended = rm("void", "X", "--json")
    assert ended.code == ended.json[0]["error"]["exit_code"] == expected
    assert ended.err.startswith("Error: ")


def test_refused_signature_is_explained(rm, served) -> None:
    """What differs is printed: here a proxy has changed the URL."""
    reply = served.emulator.reply
    served.emulator.reply = lambda request: reply(
        request
        if request.url.path.endswith("/token")
        else attrs.evolve(request, url=URL(f"{request.url}?x=1", encoded=True))
    )
    ended = rm("get", "Canary7")
    assert (ended.code, ended.out) == (3, "")
    assert ended.err.endswith(" RM read otherwise than was sent: the URL (its query).\n")
    assert "Canary7" not in ended.err


def test_version(rm) -> None:
    """``--version`` is the version and nothing else."""
    ended = rm("--version")
    assert (ended.code, ended.out, ended.err) == (0, f"rm-voucher {__version__}\n", "")


def test_help(rm) -> None:
    """Without a command it shows the help, with each command."""
    ended = rm()
    assert ended.code == 2
    for command in ("issue", "get", "void", "vouchers", "batches", "emulator"):
        assert f" {command} " in ended.out + ended.err
    assert " issue " in rm("--help").out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("arguments", [("get", "X"), ("vouchers", "B")])
def test_interrupted(rm, embedded, monkeypatch, arguments: tuple, number: signal.Signals) -> None:
    """A signal ends every command with exit 130 and without a crash."""
    from rm_voucher.emulator import Emulator

    monkeypatch.setattr(Emulator, "handle", lambda *_: signal.raise_signal(number))
    ended = rm(*arguments)
    assert ended.code == 130
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_void_interrupted(rm, embedded, monkeypatch, number: signal.Signals) -> None:
    """An interrupted void may have been done: exit 4, and a sentence that says what to do."""
    from rm_voucher.emulator import Emulator

    monkeypatch.setattr(Emulator, "handle", lambda *_: signal.raise_signal(number))
    ended = rm("void", "X")
    assert ended.code == 4
    assert "whether the voucher was voided is unknown. Look it up." in ended.err


def test_list_into_closed_pipe(start, served) -> None:
    """A reader that has seen enough (``| head``) is no crash."""
    served.emulator.add_batch("Breakfast", key="B", quantity=500)
    for _ in range(500):
        served.emulator.state.issue("B")
    process = start("vouchers", "B")
    process.stdout.close()
    err = process.stderr.read()
    assert (process.wait(), err) == (1, "")


@pytest.mark.parametrize("command", [("get",), ("void", "--json"), ("vouchers",), ("batches",)])
def test_stdout_full(rm, code: str, monkeypatch: pytest.MonkeyPatch, command: tuple) -> None:
    """An answer that can't be written is a sentence; exit 1, but 0 for a void that was done."""
    name, *options = command
    subject = {"vouchers": ["B"], "batches": []}.get(name, [code])
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        ended = rm(name, *subject, *options)
    begin = "The voucher was voided, but" if name == "void" else "Error:"
    assert ended.code == (0 if name == "void" else 1)
    assert ended.err == f"{begin} standard output can't be written: No space left on device.\n"


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra(missing: str) -> None:
    """Without the extra the command says how to install it."""
    script = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['rm-voucher', '--version']; "
        "from rm_voucher.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "The command needs the extra 'cli': pip install 'rm-voucher[cli]'.\n"


def test_entry_point() -> None:
    """``rm-voucher`` is installed as a script and is the same command as the module."""
    from importlib.metadata import entry_points

    from rm_voucher.cli import main

    (script,) = entry_points(group="console_scripts", name="rm-voucher")
    assert script.load() is main
