"""Takes frames out of tracebacks, because their locals hold codes, PINs, keys and tokens."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar, cast

from rm_voucher.exceptions import VoucherError

F = TypeVar("F", bound=Callable[..., Any])


def hide_locals(function: F) -> F:
    """Cut a function's frame, and those below it, off the tracebacks of our errors that it raises.

    Error reporters collect the locals of frames. An error that is not ours is a defect, and keeps
    its frames.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        handled = sys.exception()
        try:
            return function(*args, **kwargs)
        except VoucherError as exc:
            del args, kwargs  # of this frame, which the traceback keeps
            strip_tracebacks(exc, handled)
            raise

    @functools.wraps(function)
    async def await_(*args: Any, **kwargs: Any) -> Any:
        handled = sys.exception()
        coroutine = function(*args, **kwargs)
        del args, kwargs  # of this frame, which the traceback keeps
        try:
            return await coroutine
        except (VoucherError, asyncio.CancelledError) as exc:
            strip_tracebacks(exc, handled)
            raise

    return cast("F", await_ if inspect.iscoroutinefunction(function) else call)


def strip_tracebacks(error: BaseException, handled: BaseException | None = None) -> None:
    """Take the tracebacks off an error of ours, its causes and contexts.

    ``handled`` is an error that the caller was handling already: it and those behind it stay as
    they are. A foreign cause, such as a signer's error, keeps the frames that are not ours.
    """
    link: BaseException | None = error
    seen: set[int] = set()  # an error that was raised twice may be its own context's context
    while link is not None and link is not handled and id(link) not in seen:
        seen.add(id(link))
        if isinstance(link, VoucherError | asyncio.CancelledError):
            link.__traceback__ = None
            if link.__suppress_context__:
                link.__context__ = link.__cause__  # no traceback shows it, but reporters find it
        else:
            link.__traceback__ = _without_ours(link.__traceback__)
        link = link.__context__


def _without_ours(traceback: TracebackType | None) -> TracebackType | None:
    links = []
    while traceback is not None:
        if not str(traceback.tb_frame.f_globals.get("__name__")).startswith("rm_voucher"):
            links.append(traceback)
        traceback = traceback.tb_next
    for link in reversed(links):
        traceback = TracebackType(traceback, link.tb_frame, link.tb_lasti, link.tb_lineno)
    return traceback
