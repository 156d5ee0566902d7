"""No way of flags, variables and profiles issues more than one real voucher without a word."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.files import KEY_FILE

from rm_voucher import Credentials, Environment, Request, Response
from rm_voucher.cli import logins
from rm_voucher.cli.connect import is_real
from rm_voucher.emulator import Check, Emulator
from rm_voucher.files import replace_private
from rm_voucher.ledger import Ledger
from rm_voucher.transport.aiohttp import AiohttpTransport

LABEL = "Breakfast set"
REAL = {
    "production": Environment.PRODUCTION.api_url,
    "https://open.revenuemonster.my": "https://open.revenuemonster.my",
    "https://rm.example": "https://rm.example",
}


@attrs.define
class World:
    """All servers there are, on whatever URL; none is reached by a network."""

    emulator: Emulator
    issued_at: list[str] = attrs.field(factory=list)
    tokens_asked: int = 0

    def answer(self, request: Request) -> Response:
        host = request.url.host or ""
        if request.operation == "issue":
            self.issued_at.append(host)
        self.tokens_asked += request.operation == "token"
        return self.emulator.handle(request)

    @property
    def issued(self) -> int:
        return len(self.emulator.issued("B"))


@pytest.fixture
def world(credentials: Credentials, monkeypatch: pytest.MonkeyPatch) -> World:
    emulator = Emulator(credentials=credentials, disabled_checks=[Check.SIGNATURE])
    emulator.add_batch(LABEL, key="B", quantity=50)
    world = World(emulator)

    async def send(_: AiohttpTransport, request: Request) -> Response:
        return world.answer(request)

    monkeypatch.setattr(AiohttpTransport, "send", send)
    return world


@pytest.fixture
def account(credentials: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RM_CLIENT_ID", credentials.client_id)
    monkeypatch.setenv("RM_CLIENT_SECRET", credentials.client_secret)
    monkeypatch.setenv("RM_PRIVATE_KEY", KEY_FILE.read_text())


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a person at the terminal types; nobody is there as long as it is empty."""
    answers: list[str] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: bool(answers))
    monkeypatch.setattr("typer.prompt", lambda *_, **__: answers.pop(0))
    return answers


def save_profile(credentials: Credentials, environment: str, **more: Any) -> None:
    key_file = logins.token_folder().parent / "key.pem"
    key_file.parent.mkdir(parents=True)
    replace_private(key_file, KEY_FILE.read_bytes())
    logins.save(
        logins.Login(
            name="acme",
            client_id=credentials.client_id,
            private_key_file=str(key_file),
            environment=environment,
            **more,
        ),
        credentials.client_secret,
    )


WAYS = ["option", "variable", "RM_API_URL", "RM_OAUTH_URL", "--profile", "RM_PROFILE", "before"]
"""How a command is led to real vouchers."""


@pytest.fixture
def lead(
    credentials: Credentials, monkeypatch: pytest.MonkeyPatch, account: None
) -> Callable[[str, str], tuple[list[str], list[str]]]:
    """Lead a command to a server; return the arguments before it and after it."""

    def lead(way: str, server: str) -> tuple[list[str], list[str]]:
        url = REAL[server]
        if way == "option":
            monkeypatch.setenv("RM_ENVIRONMENT", "sandbox")
            return [], ["--environment", server]
        if way == "variable":
            monkeypatch.setenv("RM_ENVIRONMENT", server)
            return [], []
        if way in ("RM_API_URL", "RM_OAUTH_URL"):
            monkeypatch.setenv(way, url)
            return [], []
        save_profile(credentials, server)
        for name in ("RM_CLIENT_ID", "RM_CLIENT_SECRET", "RM_PRIVATE_KEY"):
            monkeypatch.delenv(name)
        if way == "RM_PROFILE":
            monkeypatch.setenv("RM_PROFILE", "acme")
            return [], []
        return (["--profile", "acme"], []) if way == "before" else ([], ["--profile", "acme"])

    return lead


@pytest.fixture
def many(tmp_path: Path) -> list[list[str]]:
    """The command lines that ask for more than one voucher."""
    path = tmp_path / "people.csv"
    path.write_text("recipient\na\nb\nc\n")
    counts = [["--count", "2"], ["--recipients", str(path)]]
    others = [
        [],
        ["--partial"],
        ["--json"],
        ["--output", str(tmp_path / "out.csv")],
        ["--ledger", f"sqlite:///{tmp_path}/a.db"],
        ["--ledger", f"sqlite:///{tmp_path}/b.db", "--exclusive", "--no-balance-check"],
        ["--rate", "1000", "--concurrency", "1"],
        ["--dry-run"],
    ]
    return [[*count, *other] for count, other in itertools.product(counts, others)]


@pytest.mark.parametrize("server", REAL)
@pytest.mark.parametrize("way", WAYS)
def test_nobody_agreed(rm, world: World, lead, many, typed, way: str, server: str) -> None:
    """No command line that asks for more than one issues one: nobody is there to agree."""
    before, after = lead(way, server)
    for arguments in many:
        ended = rm(*before, "issue", "B", *arguments, *after)
        if "--dry-run" in arguments:
            assert ended.code == 0, ended
        else:
            assert ended.code == 2, ended
            assert "only a person at a terminal can say that. A script gives --yes." in ended.err
    assert world.issued == 0


@pytest.mark.parametrize("answer", ["", "B", "yes", "y", LABEL.lower(), LABEL[:-1], "3"])
def test_person_types_another_text(rm, world: World, lead, typed, answer: str) -> None:
    """The key, a yes and half of the label are not the label."""
    lead("variable", "production")
    typed.append(answer)
    ended = rm("issue", "B", "--count", 3)
    assert (ended.code, ended.out, world.issued) == (1, "", 0)
    assert ended.err.endswith("That is something else. Nothing was issued.\n")


@pytest.mark.parametrize("answer", [LABEL, f"  {LABEL} "])
@pytest.mark.parametrize("way", WAYS)
def test_person_types_the_label(rm, world: World, lead, typed, way: str, answer: str) -> None:
    """Then all are issued, on whatever way the command came there."""
    before, after = lead(way, "production")
    typed.append(answer)
    ended = rm(*before, "issue", "B", "--count", 3, *after)
    assert (ended.code, world.issued) == (0, 3), ended
    assert "real vouchers\n" in ended.err.splitlines(keepends=True)[0]


def test_person_breaks_off(rm, world: World, lead, typed, monkeypatch) -> None:
    """Ctrl-C and Ctrl-D at the question are 130, and leave no file behind."""
    import typer

    def broken_off(*_: object, **__: object) -> str:
        raise typer.Abort

    lead("variable", "production")
    typed.append("somebody is there")
    monkeypatch.setattr("typer.prompt", broken_off)
    ended = rm("issue", "B", "--count", 3)
    assert (ended.code, ended.out, world.issued) == (130, "", 0)
    assert ended.err.endswith("\nNothing was issued.\n")


@pytest.mark.parametrize("way", WAYS)
def test_script_says_yes(rm, world: World, lead, typed, way: str) -> None:
    """A script's word counts."""
    before, after = lead(way, "production")
    assert rm(*before, "issue", "B", "--count", 3, "--yes", *after).code == 0
    assert world.issued == 3


def test_one_is_not_asked_about(rm, world: World, lead, typed, tmp_path: Path) -> None:
    """One voucher is what it says; so is one recipient, and one who is left of many."""
    lead("variable", "production")
    ledger = ("--ledger", f"sqlite:///{tmp_path}/a.db")
    assert rm("issue", "B").code == 0
    assert rm("issue", "B", "--count", 1, *ledger).code == 0
    assert rm("issue", "B", "--count", 2, *ledger).code == 0
    assert world.issued == 3
    assert rm("issue", "B", "--count", 4, *ledger).code == 2
    assert rm("issue", "B", "--count", 2, *ledger).code == 0
    assert world.issued == 3


def test_unknown_outcomes_count(rm, world: World, lead, typed, tmp_path: Path) -> None:
    """One that is left, and one whose outcome is unknown, may be two."""
    lead("variable", "production")
    answer = world.emulator.handle
    ledger = ("--ledger", f"sqlite:///{tmp_path}/a.db", "--settle", "0")

    def lose(request: Request) -> Response:
        if request.operation == "issue":
            answer(request)
            return Response(status=502, body=b"")
        return answer(request)

    world.emulator.handle = lose  # type: ignore[method-assign]
    assert rm("issue", "B", "--count", 1, *ledger).code == 4
    world.emulator.handle = answer  # type: ignore[method-assign]
    ended = rm("issue", "B", "--count", 2, *ledger)
    assert ended.code == 2
    assert "To issue 2 real vouchers" in ended.err


def test_others_that_wait_get_nothing(rm, world: World, lead, typed, tmp_path: Path) -> None:
    """Requests that an earlier run left in the ledger are not what a run for one issues to."""
    lead("variable", "production")
    url = f"sqlite:///{tmp_path}/a.db"

    async def leave() -> None:
        async with Ledger.open(url) as ledger:
            for number in range(1, 10):
                await ledger.submit("B", str(number))

    asyncio.run(leave())
    assert rm("issue", "B", "--count", 1, "--ledger", url).code == 0
    assert world.issued == 1


@pytest.mark.parametrize(
    "server", ["sandbox", Environment.SANDBOX.api_url, "http://127.0.0.1:1", "http://a.localhost:1"]
)
def test_no_real_vouchers_are_not_asked_about(rm, world, account, typed, server: str) -> None:
    """The sandbox and the servers of this machine have none. Tokens of the sandbox are its own."""
    arguments = ["--environment", server] if server != Environment.SANDBOX.api_url else []
    assert rm("issue", "B", "--count", 3, *arguments).code == 0
    assert world.issued == 3


@pytest.mark.parametrize("way", WAYS)
def test_worker_needs_a_word(rm, world: World, lead, typed, way: str, tmp_path: Path) -> None:
    """Nor does a worker begin: it issues to whoever is in the queue."""
    before, after = lead(way, "production")
    arguments = ["--broker", "redis://127.0.0.1:1", "--ledger", f"sqlite:///{tmp_path}/a.db"]
    ended = rm(*before, "worker", "--batch", "B", *arguments, *after)
    assert (ended.code, world.issued) == (2, 0)
    assert "To issue a real voucher for each message, type the batch's label" in ended.err
    typed.append("something else")
    assert rm(*before, "worker", "--batch", "B", *arguments, *after).code == 1
    assert not (tmp_path / "a.db").exists()


def test_worker_with_a_word(rm, world: World, lead, typed, monkeypatch, tmp_path: Path) -> None:
    """It begins with the label, or with a script's yes."""
    began = []

    async def work(*_: object) -> None:
        began.append(1)

    monkeypatch.setattr("rm_voucher.cli.working.work", work)
    lead("variable", "production")
    arguments = ["--broker", "redis://127.0.0.1:1", "--ledger", f"sqlite:///{tmp_path}/a.db"]
    typed.append(LABEL)
    assert rm("worker", "--batch", "B", *arguments).code == 0
    assert rm("worker", "--batch", "B", *arguments, "--yes").code == 0
    assert len(began) == 2


def test_every_command_that_issues_is_known() -> None:
    """A new one has to be asked about here: what calls an *issue* is `issue` and `worker`.

    A probe asks by itself, see ``test_probe.py``.
    """
    import rm_voucher.cli

    folder = Path(rm_voucher.cli.__file__).parent
    issuing = {
        path.stem
        for path in folder.rglob("*.py")
        if any(
            name in path.read_text()
            for name in ("bulk_issue(", ".issue(", "ledger.finish(", " Worker(")
        )
    }
    assert issuing == {"issuing", "working"}
    callers = {
        path.stem
        for path in folder.rglob("*.py")
        if "run_issue(" in path.read_text() or "working.work(" in path.read_text()
    }
    assert callers == {"issuing", "issue", "worker"}


@pytest.fixture
def production(account: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RM_ENVIRONMENT", "production")


def token_files() -> list[Path]:
    return sorted(logins.token_folder().glob("*.json"))


def test_token_is_bought_once(rm, world: World, production: None) -> None:
    """By whatever command came first, and kept for its owner alone."""
    for command in (("batches",), ("vouchers", "B"), ("issue", "B"), ("batches",)):
        assert rm(*command).code == 0
    assert world.tokens_asked == 1
    (path,) = token_files()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_refused_token_is_renewed(rm, world: World, production: None) -> None:
    """A server that knows it no more gets another one asked for."""
    assert rm("batches").code == 0
    world.emulator.reset()
    world.emulator.add_batch(LABEL, key="B", quantity=50)
    assert rm("batches").code == 0
    assert rm("batches").code == 0
    assert len(token_files()) == 1


def test_expired_token_is_renewed(rm, world: World, production: None) -> None:
    """So is one that has ended."""
    assert rm("batches").code == 0
    before = token_files()[0].read_bytes()
    world.emulator.advance(10**9)
    assert rm("batches").code == 0
    assert token_files()[0].read_bytes() != before


def test_another_account_has_another_token(rm, world: World, production: None, monkeypatch) -> None:
    """Another environment, client or secret: a wrong secret is refused at once."""
    assert rm("batches").code == 0
    monkeypatch.setenv("RM_ENVIRONMENT", "sandbox")
    assert rm("batches").code == 0
    assert len(token_files()) == 2
    monkeypatch.setenv("RM_CLIENT_SECRET", "not the secret")
    ended = rm("batches")
    assert (ended.code, "INVALID_CLIENT" in ended.err) == (3, True)
    assert len(token_files()) == 2


def test_folder_of_tokens_that_can_not_be_made(
    rm, world: World, production: None, monkeypatch, tmp_path
) -> None:
    """Without a home each command buys one."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert [rm("batches").code for _ in range(2)] == [0, 0]
    assert world.tokens_asked == 2


def test_emulator_keeps_no_token(rm, world: World, production: None, monkeypatch) -> None:
    """What one of this machine grants ends with it."""
    monkeypatch.setenv("RM_ENVIRONMENT", "http://127.0.0.1:1")
    assert rm("batches").code == 0
    assert token_files() == []


def test_damaged_token(rm, world: World, production: None) -> None:
    """It is as if there were none."""
    assert rm("batches").code == 0
    token_files()[0].write_bytes(b"{")
    assert rm("batches").code == 0
    assert world.tokens_asked == 2
    assert rm("batches").code == 0
    assert world.tokens_asked == 2


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://open.revenuemonster.my", True),
        ("https://OPEN.revenuemonster.my:443/", True),
        ("https://sb-open.revenuemonster.my", True),  # with tokens of the sandbox's API
        ("https://sb-open.revenuemonster.my.evil.example", True),
        ("https://127.0.0.1.nip.io", True),
        ("https://localhost.example", True),
        ("https://10.0.0.1", True),
        ("https://[::ffff:203.0.113.5]", True),
        ("https://127.1", True),
        ("http://localhost:1", False),
        ("http://LOCALHOST:1", False),
        ("https://127.9.9.9", False),
        ("http://[::1]:5", False),
        ("https://a.localhost", False),
    ],
)
def test_what_is_real(url: str, expected: bool) -> None:
    """All that is not for certain a sandbox, or this machine."""
    assert is_real(Environment.at(url)) is expected


@pytest.mark.parametrize("real", ["api_url", "oauth_url"])
@pytest.mark.parametrize("other", [Environment.SANDBOX, Environment.at("http://127.0.0.1:1")])
def test_half_of_it_is_real(real: str, other: Environment) -> None:
    """One of the two URLs is enough."""
    mixed = attrs.evolve(other, **{real: getattr(Environment.PRODUCTION, real)})
    assert is_real(mixed)
