"""Opens a shared store by its URL: the only place that chooses one."""

from __future__ import annotations

from rm_voucher.arguments import check_type
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.extras import extra, extra_of
from rm_voucher.runtime import Runtime
from rm_voucher.shared.store import SharedStore

_REDIS = ("redis://", "rediss://", "unix://")
_SQL = ("postgresql", "sqlite")  # perhaps with a driver


def open_shared_store(url: str, *, runtime: Runtime | None = None) -> SharedStore:
    """Return a store; leave it with ``async with``, or call `SharedStore.aclose`.

    ``url`` is ``postgresql://user@host/database`` (extra ``postgres``), ``redis://host:6379/0``,
    ``rediss://…`` or ``unix:///path`` (extra ``redis``), or, for processes of one machine,
    ``sqlite:///shared.db`` (extra ``sql``). It connects at its first use, and may be made before a
    fork. Raises `ConfigurationError`.
    """
    check_type("url", url, str)
    check_type("runtime", runtime, Runtime, optional=True)
    if url.startswith(_REDIS):
        with extra("redis", "A shared store", ConfigurationError):
            from rm_voucher.shared.redis import RedisSharedStore

        return RedisSharedStore(url)
    if not url.startswith(_SQL):
        raise ConfigurationError(
            "A shared store's URL begins with postgresql://, redis://, rediss://, unix:/// or "
            "sqlite:///."
        )
    with extra(extra_of(url), "A shared store", ConfigurationError):
        from rm_voucher.shared.sql import SqlSharedStore  # slow to import

    return SqlSharedStore(url, runtime=runtime)
