"""Who may steer the emulator: only this machine, and not a browser's pages of other sites."""

from __future__ import annotations

import re

from rm_voucher.settings import is_loopback

HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
"""The form of a Host header: a name or an address, and a port."""
PREFIX = "/_emulator"
"""Where it is, beside RM's API."""


def refuses(*, peer: str | None, host: str, origin: str | None) -> str | None:
    """Return the reason to refuse a request to the control API, or None.

    The peer must be on loopback. The Host header must be a name of loopback, because another
    site's name could be made to lead here. A request of another site's page is refused.
    """
    if not is_loopback(peer or ""):
        return "the control API answers this machine only"
    named = HOST.fullmatch(host)
    if named is None or not is_loopback(named[1].strip("[]").lower()):
        return "the Host header is no name of this machine"
    if origin is not None and origin != f"http://{host}":
        return "the request comes from another site's page"
    return None
