"""Takes frames out of tracebacks, because their locals hold codes, PINs, keys and tokens."""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from types import FunctionType, TracebackType
from typing import Any, TypeVar, cast

from rm_voucher.decode_error import VoucherError

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


def likeness(error: BaseException, mask: Callable[[str], str]) -> Exception:
    """Return an error for error reporters that shows how a user's function failed, and no more.

    It, its causes and its contexts have classes of the same names, their texts as ``mask`` returns
    them, and the lines of the traceback that are not ours, without any local.
    """
    return _likeness(error, mask, {})


def _likeness(
    error: BaseException, mask: Callable[[str], str], made: dict[int, Exception]
) -> Exception:
    if id(error) in made:
        return made[id(error)]
    kind = type(error)
    is_group = isinstance(error, BaseExceptionGroup)
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    named = type(kind.__name__, (ExceptionGroup if is_group else Exception,), names)
    text = mask(_text(error))
    like: Exception
    if isinstance(error, BaseExceptionGroup):
        like = named(text, [_likeness(each, mask, made) for each in error.exceptions])
    else:
        like = named(text)
    made[id(error)] = like  # before its causes: an error may be its own context's context
    for note in getattr(error, "__notes__", ()):
        like.add_note(mask(str(note)))
    like.__traceback__ = _without_locals(_without_ours(error.__traceback__))
    if error.__cause__ is not None:
        like.__cause__ = _likeness(error.__cause__, mask, made)
    if error.__context__ is not None:
        like.__context__ = _likeness(error.__context__, mask, made)
    like.__suppress_context__ = error.__suppress_context__
    return like


def _text(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return str(error.message)
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - of a class of the user's
        return "its text can't be had"


def _stand_in() -> Iterator[None]:
    yield  # pragma: no cover - only its frame is wanted


def _without_locals(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback of the same lines, whose frames were never entered."""
    links = []
    while traceback is not None:
        links.append((traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    for frame, line in reversed(links):
        code = _stand_in.__code__.replace(
            co_filename=frame.f_code.co_filename,
            co_name=frame.f_code.co_name,
            co_qualname=frame.f_code.co_qualname,
            co_firstlineno=frame.f_code.co_firstlineno,
        )
        bare = FunctionType(code, {"__name__": frame.f_globals.get("__name__")})().gi_frame
        traceback = TracebackType(traceback, bare, -1, line)
    return traceback
