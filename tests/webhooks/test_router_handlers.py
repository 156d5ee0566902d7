"""Making a router: its settings, and what may be registered as a handler."""

import functools
from collections.abc import Awaitable, Callable
from unittest.mock import AsyncMock

import pytest
from support.webhook_routers import (
    Shop,
    event,
    give_quiet,  # noqa: F401 - a fixture
    make_router,
)

from rm_voucher import ConfigurationError, VoucherStatus
from rm_voucher.webhooks import (
    EventOutcome,
    MemoryEventStore,
    WebhookRouter,
    open_event_store,
)


@pytest.fixture
def store(time):
    return MemoryEventStore(runtime=time.runtime)


async def no_event() -> None: ...


async def three(event, tx, more) -> None: ...


async def named(event, *, tx) -> None: ...


@pytest.mark.parametrize("setting", ["handler_timeout_s", "read_timeout_s", "max_in_flight"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_setting_that_is_none(store, setting, value):
    """A limit that nothing could keep is refused at once."""
    with pytest.raises(ConfigurationError, match=setting):
        make_router(store, **{setting: value})


@pytest.mark.parametrize("arguments", [(None,), ("pem",)], ids=["none", "text"])
def test_router_of_something_else(store, arguments):
    """A URL in place of a store, or a key in place of a verifier, is a mistake with a sentence."""
    with pytest.raises(ConfigurationError, match=r"open_event_store\(url\)"):
        WebhookRouter(*arguments, store=store)
    with pytest.raises(ConfigurationError, match=r"open_event_store\(url\)"):
        WebhookRouter(make_router(store).verifier, store="sqlite:///x.db")  # type: ignore[arg-type]


def test_status_in_small_letters(store):
    """A status of RM's in other letters would never come: it is a mistake, and not a new one."""
    with pytest.raises(ConfigurationError, match="'void': write 'VOID'"):
        make_router(store).on("void")(Shop().handle)


@pytest.mark.parametrize("statuses", [(), ("VOID",), ("REDEEMED", VoucherStatus.VOID)])
def test_second_handler_of_a_status(store, statuses):
    """One status has one handler, so that it is plain which one runs."""
    router = make_router(store)
    router.on(*statuses)(Shop().handle)
    with pytest.raises(ConfigurationError, match=r"handler already for (VOID|others)\."):
        router.on(*statuses[-1:])(Shop().handle)


@pytest.mark.parametrize(
    "function", [lambda event: None, print, Shop(), Shop, no_event, three, named]
)
def test_what_is_no_handler(store, function):
    """What is no coroutine function of one or two arguments is refused before anything comes."""
    with pytest.raises(ConfigurationError, match=r"async def handler\(event\)"):
        make_router(store).on()(function)


def test_transaction_without_database(store):
    """A handler that takes the transaction is refused where there is none; a partial is, too."""
    for function in (Shop().act, functools.partial(Shop.act, Shop())):
        with pytest.raises(ConfigurationError, match=r"open_event_store\(url\)"):
            make_router(store).on()(function)


@pytest.mark.parametrize("given", [no_event, print, 1, None])
def test_decorator_without_parentheses(store, given):
    """``@router.on`` alone would register nothing, silently: it is refused."""
    with pytest.raises(ConfigurationError, match=r"@router\.on\(\)"):
        make_router(store).on(given)


async def test_kinds_of_handlers(tmp_path, time):
    """Methods and partials are handlers; only a second argument without default is given ``tx``."""
    got: list[tuple[object, ...]] = []

    async def with_default(event, session="mine"):
        got.append(("default", session))

    async def all_there_is(*args, **kwargs):
        got.append(("all", len(args), kwargs))

    async def three(first, event, tx):
        got.append((first, type(tx).__name__))

    shop, mock = Shop(), AsyncMock(return_value=None)
    router = make_router(
        open_event_store(f"sqlite:///{tmp_path / 'events.db'}", runtime=time.runtime)
    )
    handlers: dict[str, Callable[..., Awaitable[object]]] = {
        "A": shop.handle,
        "B": with_default,
        "C": all_there_is,
        "D": functools.partial(three, "partial"),
        "E": mock,
    }
    for status, handler in handlers.items():
        assert router.on(status)(handler) is handler
    async with router:
        for status in handlers:
            assert await router.dispatch(event(f"CODE-{status}", status)) is EventOutcome.HANDLED
    assert shop.statuses == ["A"]
    assert got == [("default", "mine"), ("all", 1, {}), ("partial", "Transaction")]
    mock.assert_awaited_once()
