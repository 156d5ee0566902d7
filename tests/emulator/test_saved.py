"""An emulator as JSON and in a file: what is put back is what was there, and goes on alike."""

import asyncio
import io
import sqlite3
import stat
from datetime import UTC, datetime

import aiohttp
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.doubles import FakeTime
from support.files import KEY_FILE
from yarl import URL

from rm_voucher import (
    ConfigurationError,
    Credentials,
    Expiry,
    ExpiryType,
    Request,
    Response,
    StaticToken,
)
from rm_voucher.emulator import (
    Check,
    Emulator,
    Fault,
    FaultPlan,
    Guesses,
    Window,
    saved_form,
    state_file,
)
from rm_voucher.emulator import server as server_module
from rm_voucher.emulator.control.dispatch import control
from rm_voucher.emulator.scenario.apply import emulator_of
from rm_voucher.emulator.scenario.read import scenario_of
from rm_voucher.emulator.server import serve
from rm_voucher.emulator.state_file import kept_in
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.signing.rsa import RsaSigner
from rm_voucher.transport.memory import MemoryTransport

PEM = KEY_FILE.read_bytes()
PUBLIC = RsaSigner.from_pem(PEM).public_key_pem()
ME = Credentials("client-id", "client-secret", PEM)
DATED = Expiry(type=ExpiryType.FIXED, expires_at=datetime(2090, 1, 1, tzinfo=UTC))


@pytest.fixture
def clock():
    return FakeTime()


def make(clock, **options):
    options = {"seed": 1, "credentials": ME, "callback_key": PEM, **options}
    return Emulator(clock=clock.clock, **options)


def filled(clock, **options):
    """Return an emulator with something of everything, two merchants, and half a history."""
    emulator = make(
        clock,
        batches={"START": 3},
        disabled_checks=[Check.TIMESTAMP],
        guesses=Guesses(used_from="REDEEMED", statuses={"X": 418}),
        callback_url="https://main.invalid/",
        **options,
    )
    emulator.add_batch("Tea", key="TEA", quantity=9, expiry=DATED, amount_sen=100)
    emulator.add_batch("Own", key="OWN", codes=["own-code-1", "own-code-2"])
    emulator.add_batch("One", key="ONE", quantity=5, static_code="same-for-all")
    member = emulator.add_member("60", "1", name="Aminah")
    emulator.state.add_store("S1", is_authorised=False)
    codes = [emulator.state.issue(key)[0] for key in ("TEA", "TEA", "TEA", "OWN", "ONE", "ONE")]
    emulator.state.collect(codes[0], member)
    emulator.state.void(codes[1], any_store=True, store_id="S9")
    emulator.state.expire(codes[2])
    emulator.faults = FaultPlan(
        rate=0.5, seed=3, windows=[Window(fault="closed", start_s=99, length_s=1)]
    )
    emulator.fail_next("issue", Fault.THROTTLE, times=2)
    emulator.fail_next("get", "VOUCHER_NOT_FOUND")
    emulator.rate_limit = 50
    emulator.advance(5)
    shop = emulator.merchant("shop", public_key=PUBLIC, client_id="shop", client_secret="s")
    shop.add_batch("Cake", key="TEA", quantity=4)
    shop.state.issue("TEA")
    return emulator


def as_json(emulator):
    return orjson.dumps(emulator.export())


def test_export_and_restore_are_each_others_inverse(clock):
    """What is restored exports the same, and issues the very codes that would have come next."""
    first = filled(clock)
    document = as_json(first)
    second = make(clock)
    second.restore(orjson.loads(document))
    assert as_json(second) == document
    assert second.client_id == first.client_id
    assert [one.name for one in second.merchants] == ["main", "shop"]
    for key in ("TEA", "OWN", "ONE", "START"):
        assert second.state.issue(key) == first.state.issue(key)
    assert [second.state.wire(one) for one in second.state.member("60", "1").vouchers] == [
        first.state.wire(one) for one in first.state.member("60", "1").vouchers
    ]
    assert second.callbacks.waiting == first.callbacks.waiting == 2
    assert second.callbacks.public_key_pem == first.callbacks.public_key_pem


def test_reset_after_a_restore_begins_as_it_was_made(clock):
    emulator = make(clock, batches={"OTHER": 7})
    emulator.restore(filled(clock).export())
    emulator.reset()
    assert [batch.key for batch in emulator.state.stock.ours()] == ["START"]
    assert emulator.virtual_clock.ahead_s == 0


async def test_client_goes_on_with_its_token(clock):
    """Tokens are in it: a client that has one does not notice."""
    first = make(clock, batches={"K": 5})
    async with first.client() as client:
        await client.issue("K")
    second = make(clock)
    second.restore(first.export())
    authorization = list(first.journal)[-1].request.headers["Authorization"]
    token = StaticToken(authorization.removeprefix("Bearer "))
    async with second.client(token_source=token) as other:
        await other.issue("K")
    assert second.requests == {"token": 1, "issue": 2}
    assert second.journal.number == 3


def test_snapshot(clock):
    emulator = make(clock, batches={"K": 5})
    before = as_json(emulator)
    with pytest.raises(KeyError), emulator.snapshot():
        emulator.state.issue("K")
        emulator.merchant("shop", public_key=PUBLIC)
        emulator.advance(9)
        raise KeyError
    assert as_json(emulator) == before


def test_made_vouchers_that_are_not_listed(clock):
    """Where VALID vouchers are not listed, a listing has the order of leaving the stock."""
    emulator = make(clock, guesses=Guesses(lists_valid=False, codes_up_front=True))
    emulator.add_batch("x", key="X", quantity=5)
    emulator.state.redeem([emulator.state.stock.batch("X").made[3].code])
    clock.now += 1
    emulator.state.issue("X")
    other = make(clock)
    other.restore(emulator.export())
    assert other.issued("X") == emulator.issued("X")
    assert other.state.issue("X") == emulator.state.issue("X")


OPERATIONS = ("issue", "void", "redeem", "collect", "expire", "share", "reinstate", "advance")


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 9)), max_size=40))
def test_any_books_are_put_back(steps):
    """After whatever happened, books that are put back answer the same."""
    clock = FakeTime()
    emulator = make(clock, batches={"A": 9, "B": 2}, callback_url="https://x.invalid/")
    member = emulator.add_member("60", "1")
    for step, number in steps:
        codes = [*emulator.issued("A"), *emulator.issued("B"), "none"]
        code, state = codes[number % len(codes)], emulator.state
        does = {
            "issue": lambda: state.issue("AB"[number % 2]),  # noqa: B023 - called at once
            "void": lambda: state.void(code),  # noqa: B023
            "redeem": lambda: state.redeem([code]),  # noqa: B023
            "collect": lambda: state.collect(code, member),  # noqa: B023
            "expire": lambda: state.expire(code),  # noqa: B023
            "share": lambda: state.share(code),  # noqa: B023
            "reinstate": lambda: state.reinstate(code),  # noqa: B023
            "advance": lambda: emulator.advance(number * 86_400.0),  # noqa: B023
        }[step]
        try:
            does()
        except Exception as exc:  # noqa: BLE001 - a refusal, which changes nothing
            assert type(exc).__name__ == "RefusedError"
    other = make(clock)
    other.restore(orjson.loads(as_json(emulator)))
    assert as_json(other) == as_json(emulator)
    for path in (
        "/summary?reveal=true",
        "/batches/A/vouchers?reveal=true",
        "/deliveries?reveal=true",
    ):
        answers = [control(one, "GET", f"/_emulator{path}", b"").body for one in (emulator, other)]
        assert answers[0] == answers[1]


def spoilt(document, *path, value=None):
    """Return a document in which one value is another one."""
    copy = orjson.loads(orjson.dumps(document))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return copy


@pytest.mark.parametrize(
    "path",
    [
        ("version",),
        ("merchants",),
        ("merchants", 0, "books"),
        ("merchants", 0, "books", "random"),
        ("merchants", 0, "options", "private_key"),
        ("merchants", 0, "vouchers"),
        ("merchants", 0, "vouchers", "TEA", 0),
        ("merchants", 0, "books", "batches", 0, "expiry"),
        ("merchants", 0, "callbacks", "deliveries", 0, "body"),
        ("merchants", 0, "faults", "plan", "rate"),
        ("callback_key",),
    ],
)
@pytest.mark.parametrize("value", [7, "x", {}])
def test_spoilt_exports_change_nothing(clock, path, value):
    """One that can't be read whole is refused, and the emulator stays as it was."""
    emulator = make(clock, batches={"K": 5})
    before = as_json(emulator)
    with pytest.raises(ConfigurationError):
        emulator.restore(spoilt(filled(clock).export(), *path, value=value))
    assert as_json(emulator) == before


@pytest.mark.parametrize(
    "change",
    [
        (("ahead_s",), "x"),
        (("merchants", 0, "options", "guesses"), {"no_such": 1}),
        (("merchants", 1, "name"), "?"),
    ],
)
def test_other_spoilt_exports(clock, change):
    with pytest.raises(ConfigurationError):
        make(clock).restore(spoilt(filled(clock).export(), *change[0], value=change[1]))


def test_what_is_no_export(clock):
    with pytest.raises(ConfigurationError):
        make(clock).restore([])
    with pytest.raises(ConfigurationError, match="this version"):
        make(clock).restore({})


def test_over_the_control_api(clock, monkeypatch):
    emulator, other = filled(clock), make(clock)
    exported = control(emulator, "GET", "/_emulator/export", b"").body
    assert control(other, "POST", "/_emulator/import", exported).status == 200
    assert control(other, "GET", "/_emulator/export", b"").body == exported
    assert control(other, "POST", "/_emulator/import", b"{}").status == 400
    monkeypatch.setattr("rm_voucher.emulator.control.endpoints._MOST_EXPORTED", 3)
    assert b"3 vouchers at most" in control(other, "GET", "/_emulator/export", b"").body
    health = orjson.loads(control(other, "GET", "/_emulator/health", b"").body)
    assert health["status"] == "ok"
    assert health["merchants"] == ["main", "shop"]


async def kept(path, emulator, *, does=lambda: None):
    """Keep an emulator in a file, do something, and end."""
    async with kept_in(path, emulator):
        does()


async def test_file_keeps_everything(tmp_path, clock, one_key):
    path = tmp_path / "state"
    first = filled(clock)
    await kept(path, first, does=lambda: first.state.issue("TEA"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    second = make(clock)
    await kept(path, second)
    assert as_json(second) == as_json(first)


async def test_file_follows_what_happens(tmp_path, clock, monkeypatch):
    """Changes are written while it runs: vouchers, those made up front, resets, merchants."""
    monkeypatch.setattr(state_file, "_EVERY_S", 0.001)
    path = tmp_path / "state"
    emulator = filled(clock)
    copies = tmp_path / "copy"

    async def written():
        """Wait until a copy of the file is what the emulator is."""
        async with asyncio.timeout(20):
            while True:
                await asyncio.sleep(0.005)  # it is written in a thread
                for suffix in ("", "-wal"):
                    source = path.with_name(path.name + suffix)
                    copies.with_name(copies.name + suffix).write_bytes(
                        source.read_bytes() if source.exists() else b""
                    )
                other = make(clock)
                try:
                    await kept(copies, other)
                except ConfigurationError:
                    continue  # copied in the middle of a write
                if as_json(other) == as_json(emulator):
                    return

    async with kept_in(path, emulator):
        emulator.site.changes += 1
        emulator.state.issue("TEA")
        await written()
        emulator.add_batch("up", key="UP", codes=["up-front-1", "up-front-2", "up-front-3"])
        emulator.state.void(emulator.state.issue("UP")[0])
        emulator.site.changes += 1
        await written()
        emulator.drop_merchant("shop")
        emulator.reset()
        emulator.state.issue("START")
        emulator.site.changes += 1
        await written()
    assert emulator.site.on_touch is None


async def test_one_emulator_a_file(tmp_path, clock):
    path = tmp_path / "state"
    async with kept_in(path, make(clock)):
        with pytest.raises(ConfigurationError, match="another emulator"):
            await kept(path, make(clock))


async def test_files_that_are_refused(tmp_path, clock):
    """What is none of ours is named, and left as it is."""
    text, other, later, spoilt_one = (tmp_path / name for name in "abcd")
    text.write_text("no database" * 100)
    with sqlite3.connect(other) as file:
        file.execute("CREATE TABLE x (y)")
    file.close()
    for path in (later, spoilt_one):
        await kept(path, make(clock))
    with sqlite3.connect(later) as file:
        file.execute("PRAGMA user_version = 99")
    file.close()
    with sqlite3.connect(spoilt_one) as file:
        file.execute("UPDATE document SET content = '{'")
    file.close()
    for path, words in (
        (text, "no state"),
        (other, "no state"),
        (later, "another version"),
        (spoilt_one, "spoilt"),
        (tmp_path, "can't be opened"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            await kept(path, make(clock))
    assert text.read_text().startswith("no database")


async def test_file_that_was_never_filled(tmp_path, clock):
    """A kill right after the file was made leaves one without a document: a new beginning."""
    path = tmp_path / "state"
    await kept(path, make(clock))
    with sqlite3.connect(path) as file:
        file.execute("DELETE FROM document")
    file.close()
    emulator = make(clock, batches={"K": 1})
    await kept(path, emulator)
    assert [batch.key for batch in emulator.state.stock.ours()] == ["K"]


async def test_disk_that_fails_leaves_the_old_state(tmp_path, clock, monkeypatch):
    path = tmp_path / "state"
    emulator = make(clock, batches={"K": 5})
    await kept(path, emulator)

    def fails(self):
        return b"x", [], [("main", "K", None, [])]

    with pytest.raises(ConfigurationError, match="can't be written"):
        async with kept_in(path, emulator):
            monkeypatch.setattr(state_file._Keeper, "changes", fails)
    monkeypatch.undo()
    other = make(clock)
    await kept(path, other)
    assert as_json(other) == as_json(emulator)


async def test_file_forgets_a_merchant_whose_name_another_one_has(tmp_path, clock):
    """So it does where both were there between two writes, and where an import made it anew."""
    path, emulator, second = tmp_path / "state", make(clock), make(clock)

    def made_again():
        emulator.merchant("shop", batches={"K": 5}, seed=2).state.issue("K")

    def replaced():
        emulator.drop_merchant("shop")
        emulator.merchant("shop", batches={"K": 5}, seed=3).state.issue("K")

    def imported():
        emulator.restore(emulator.export())
        shop = emulator.merchant("shop")
        shop.state.void(shop.issued("K")[0])

    made_again()
    for change in (replaced, imported):
        await kept(path, emulator, does=change)
        await kept(path, second)
        assert as_json(second) == as_json(emulator)


def test_file_forgets_a_dropped_merchant(clock):
    """Also where another one took its name before the file was written."""
    emulator = make(clock)
    keeper = state_file._Keeper(emulator)
    emulator.merchant("shop", batches={"K": 2}).state.issue("K")
    assert keeper.has_changed()
    keeper.changes()
    assert not keeper.has_changed()
    emulator.drop_merchant("shop")
    emulator.merchant("shop", batches={"K": 2})
    assert keeper.has_changed()
    _, to_forget, rows = keeper.changes()
    assert (to_forget, rows) == (["shop"], [])


async def test_deliveries_that_were_under_way_or_ended(clock):
    """An attempt that was under way is made again; what was delivered is not."""
    emulator = make(clock, batches={"K": 5}, callback_url="https://x.invalid/")
    emulator.callbacks.transport = MemoryTransport(lambda request: Response(status=200))
    for _ in range(2):
        emulator.state.void(emulator.state.issue("K")[0])
    await emulator.callbacks.deliver()
    emulator.state.void(emulator.state.issue("K")[0])
    assert emulator.callbacks.take_due() is not None
    other = make(clock)
    other.restore(emulator.export())
    assert other.callbacks.waiting == 1
    assert other.callbacks.delivered == 2
    assert len(other.callbacks.newest()) == 3


def test_faults_that_were_met(clock):
    emulator = make(clock, batches={"K": 5})
    emulator.fail_next("issue", Fault.THROTTLE)
    emulator.fail_next("issue", "VOUCHER_NOT_FOUND")
    request = Request(
        operation="issue", method="POST", url=URL("https://x.invalid/v3/voucher-batch/K/issue")
    )
    for _ in range(2):
        emulator.reply(request)
    other = make(clock)
    other.restore(emulator.export())
    assert other.faults_met == emulator.faults_met
    assert len(other.faults_met) == 2


def test_emulator_that_never_signed_a_callback(clock):
    first = Emulator(clock=clock.clock, public_key=PUBLIC, client_id="i", client_secret="s")
    first.site.callback_signer = None
    document = first.export()
    assert document["callback_key"] is None
    second = make(clock)
    second.restore(document)
    assert second.site.callback_signer is None
    assert second.known_credentials is None
    assert (second.client_id, second.client_secret) == ("i", "s")


def test_batches_of_other_merchants(clock):
    """Those that are not ours are kept, too, and stay others'."""
    emulator = make(clock)
    emulator.add_batch("x", key="X", codes=["their-code"], is_ours=False)
    other = make(clock)
    other.restore(emulator.export())
    assert list(other.state.stock.ours()) == []
    with pytest.raises(RefusedError, match="VOUCHER_NOT_MERCHANT"):
        other.state.get("their-code")


async def test_import_over_http(clock):
    """It may be larger than any other body, and is bounded all the same."""
    emulator = Emulator(credentials=ME, batches={"K": 12_000})
    for _ in range(12_000):
        emulator.state.issue("K")
    document = as_json(emulator)
    assert len(document) > 2**20
    async with serve(emulator) as server, aiohttp.ClientSession(server.url) as session:
        emulator.reset()
        async with session.post("/_emulator/import", data=io.BytesIO(document)) as answer:
            assert answer.status == 200
        assert len(emulator.issued("K")) == 12_000
        async with session.post("/_emulator/batches", data=io.BytesIO(document)) as answer:
            assert answer.status == 413


async def test_import_that_is_too_large(monkeypatch):
    monkeypatch.setattr(server_module, "_MAX_IMPORT_BYTES", 100)
    async with serve(Emulator(credentials=ME)) as server, aiohttp.ClientSession() as session:
        url = f"{server.url}/_emulator/import"
        async with session.post(url, data=b"{" + b" " * 500 + b"}") as answer:
            assert answer.status == 413


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("ahead_s",), float("inf")),
        (("ahead_s",), True),
        (("merchants", 0, "callbacks", "deliveries", 0, "due"), "soon"),
        (("merchants", 0, "faults", "since"), "x"),
        (("merchants", 0, "books", "batches", 0, "quantity"), "9"),
        (("merchants", 0, "vouchers", "TEA", 0, 0), 5),
        (("merchants", 0, "tokens", "tokens"), {"x": "y"}),
        (("merchants", 0, "more"), 1),
        (("merchants", 0, "vouchers", "TEA", 0, 7), ["60"]),
    ],
)
def test_values_of_another_form(clock, path, value):
    """Each is refused before anything is made of it, with its place."""
    document = filled(clock).export()
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    with pytest.raises(ValueError, match=path[0]):
        saved_form.check(document)
    with pytest.raises(ConfigurationError):
        make(clock).restore(document)


def test_seed_of_any_size(clock):
    emulator = make(clock, seed=2**70, faults=FaultPlan(seed=2**80))
    other = make(clock)
    other.restore(emulator.export())
    assert as_json(other) == as_json(emulator)


def test_restore_keeps_who_a_merchant_is(clock):
    """Whoever holds a merchant, or has set where its callbacks go, goes on with it."""
    emulator = filled(clock)
    shop, transport = (
        emulator.find_merchant("shop"),
        MemoryTransport(lambda request: Response(status=200)),
    )
    emulator.callbacks.transport = transport
    with emulator.snapshot():
        shop.state.issue("TEA")
    assert emulator.find_merchant("shop") is shop
    assert len(shop.issued("TEA")) == 1
    assert emulator.callbacks.transport is transport
    stranger = make(clock, credentials=Credentials("other", "one", PEM), batches={"K": 1})
    emulator.restore(stranger.export())
    assert emulator.client_id == "other"
    assert emulator.callbacks.transport is transport
    assert emulator.find_merchant("shop") is None


def test_scenario_goes_on(clock):
    """What a scenario has still to do is done after a restore, and nothing is done twice."""
    emulator = emulator_of("sells-out", credentials=ME, clock=clock.clock)
    emulator.advance(20)
    document = emulator.export()
    other = emulator_of("sells-out", credentials=ME, clock=clock.clock)
    other.restore(document)
    other.advance(9)
    assert [batch.key for batch in other.state.stock.ours()] == ["BREAKFAST"]
    other.advance(1)
    assert [batch.key for batch in other.state.stock.ours()] == ["BREAKFAST", "BREAKFAST-2"]
    other.restore(other.export())
    other.advance(60)
    assert len(other.state.stock.ours()) == 2


def test_scenario_that_meets_something_in_its_way(clock, caplog):
    """A batch that is there already when the scenario makes it is said, and stops nothing."""
    emulator = emulator_of("sells-out", credentials=ME, clock=clock.clock)
    emulator.add_batch("x", key="BREAKFAST-2", quantity=1)
    emulator.advance(30)
    assert "can't be done" in caplog.text
    assert emulator.batch("BREAKFAST-2").quantity == 1


async def test_made_batches_dropped_merchants_and_imports(tmp_path, clock):
    """They are in the file: vouchers that nobody touched, new merchants of an old name, imports."""
    path = tmp_path / "state"
    emulator = filled(clock)
    exported = filled(clock).export()
    async with kept_in(path, emulator):
        emulator.add_batch("up", key="UP", codes=["up-front-1", "up-front-2"])
    other = make(clock)
    await kept(path, other)
    assert as_json(other) == as_json(emulator)
    for _ in range(2):
        async with kept_in(path, other):
            for name in ("shop", "new"):
                if other.find_merchant(name) is not None:
                    other.drop_merchant(name)
                made = other.merchant(name, public_key=PUBLIC, client_id=name, batches={"N": 3})
                made.state.issue("N")
            other.restore(exported)
            other.merchant("more", public_key=PUBLIC, client_id="more", batches={"N": 3})
        again = make(clock)
        await kept(path, again)
        assert as_json(again) == as_json(other)


async def test_disk_that_is_full_for_a_while(tmp_path, clock, monkeypatch, caplog):
    """It is said once and tried again, with everything, until it is written."""
    monkeypatch.setattr(state_file, "_EVERY_S", 0.001)
    path, emulator, failures = tmp_path / "state", make(clock, batches={"K": 100_000}), [3]
    write = state_file._write

    def fails(*arguments):
        if failures[0]:
            failures[0] -= 1
            raise sqlite3.OperationalError("database or disk is full")
        write(*arguments)

    async with kept_in(path, emulator):
        monkeypatch.setattr(state_file, "_write", fails)
        async with asyncio.timeout(20):
            while failures[0]:
                emulator.state.issue("K") if failures[0] > 1 else None
                emulator.site.changes += 1
                await asyncio.sleep(0.001)  # it is written in a thread
    other = make(clock)
    await kept(path, other)
    assert as_json(other) == as_json(emulator)
    assert caplog.text.count("can't be written") == 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("merchants", 1, "number"), 1),
        (("merchants", 1, "number"), 10**15),
        (("merchants", 0, "number"), 2),
        (("merchants", 1, "name"), "main"),
        (("merchants", 0, "options", "guesses", "page_size"), "x"),
        (("merchants", 0, "options", "guesses", "page_size"), 0),
        (("merchants", 0, "options", "guesses", "listing_delay_s"), "x"),
        (("ahead_s",), 1e15),
        (("merchants", 0, "books", "batches", 0, "quantity"), -5),
    ],
)
def test_values_that_would_do_harm(clock, path, value):
    """Merchants that meet, guesses of another type, and times that there are not are refused."""
    document = filled(clock).export()
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    emulator = make(clock, batches={"K": 5})
    before = as_json(emulator)
    with pytest.raises(ConfigurationError):
        emulator.restore(document)
    assert as_json(emulator) == before


def test_chance_that_gives_no_new_codes(clock):
    """It is refused; a loop without an end would hold everything up."""
    emulator = make(clock, batches={"K": 5})
    document = emulator.export()
    version, numbers, gauss = document["merchants"][0]["books"]["random"]
    zeros = [*([0] * (len(numbers) - 1)), numbers[-1]]
    document["merchants"][0]["books"]["random"] = [version, zeros, gauss]
    emulator.restore(document)
    emulator.state.issue("K")
    with pytest.raises(ValueError, match="no new codes"):
        emulator.state.issue("K")


def test_other_merchants_of_a_scenario_go_on(clock):
    """Each merchant's part of a scenario is played on its own books, also after a restart."""
    scenario = scenario_of(
        {
            "merchants": {
                "cafe": {
                    "batches": [
                        {"key": "C", "quantity": 2},
                        {"key": "D", "quantity": 1, "at_s": 30},
                    ]
                }
            }
        }
    )
    first = emulator_of(scenario, credentials=ME, clock=clock.clock)
    document = first.export()
    second = emulator_of(scenario, credentials=ME, clock=clock.clock)
    second.restore(document)
    cafe = second.find_merchant("cafe")
    assert cafe is not None
    second.advance(31)
    assert [batch.key for batch in cafe.state.stock.ours()] == ["C", "D"]
    second.reset()
    assert [batch.key for batch in cafe.state.stock.ours()] == ["C"]


def test_what_fell_due_while_it_was_off(clock):
    """A scenario's later batch is there after a restart that came after its time."""
    first = emulator_of("sells-out", credentials=ME, clock=clock.clock)
    first.advance(10)
    document = first.export()
    clock.now += 100
    second = emulator_of("sells-out", credentials=ME, clock=clock.clock)
    second.restore(document)
    assert [batch.key for batch in second.state.stock.ours()] == ["BREAKFAST", "BREAKFAST-2"]


@pytest.mark.parametrize("change", [lambda found: [], lambda found: [{**found[0], "number": 5}]])
def test_first_merchant_is_there_and_has_the_number_one(clock, change):
    document = make(clock, batches={"K": 1}).export()
    document["merchants"] = change(document["merchants"])
    with pytest.raises(ConfigurationError, match="spoilt"):
        make(clock).restore(document)


async def test_transaction_that_the_database_ended(tmp_path, clock):
    """SQLite itself rolls back where a disk is full; the reason is what is told."""
    path = tmp_path / "state"
    await kept(path, make(clock, batches={"K": 1}))
    with sqlite3.connect(path) as file:
        file.execute(
            "CREATE TRIGGER full BEFORE INSERT ON document "
            "BEGIN SELECT RAISE(ROLLBACK, 'disk is full'); END"
        )
    file.close()
    with pytest.raises(sqlite3.Error, match="disk is full"):
        await kept(path, make(clock))
