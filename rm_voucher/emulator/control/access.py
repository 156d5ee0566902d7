"""Who may steer the emulator: this machine, or who knows an allowed name; no other site's page."""

from __future__ import annotations

import re
from collections.abc import Collection

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.settings import base_url, is_loopback

HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
"""The form of a Host header: a name or an address, and a port."""
PREFIX = "/_emulator"
"""Where it is, beside RM's API."""


def allowed_names(hosts: Collection[str]) -> tuple[str, ...]:
    """Return names as `refuses` takes them. Raises `ConfigurationError` for what is none."""
    if isinstance(hosts, str):
        raise ConfigurationError("allowed_hosts are several names, such as a list.")
    for host in hosts:
        if not (isinstance(host, str) and HOST.fullmatch(host)):
            raise ConfigurationError(
                f"{host!r} is no name of a host, such as emulator or emulator:8000."
            )
        base_url(f"The allowed host {host!r}", f"http://{host}", allow_plain_http=True)
    return tuple(host.lower() for host in hosts)


def refuses(
    *,
    peer: str | None,
    host: str,
    origin: str | None,
    fetch_site: str | None = None,
    allowed_hosts: Collection[str] = (),
) -> str | None:
    """Return the reason to refuse a request to the control API, or None.

    The Host header must be one of ``allowed_hosts``, with or without its port, or the peer must be
    on loopback and the header a name of loopback: another site's name could be made to lead here.
    A request of another site's page is refused: ``origin`` and ``fetch_site`` are the headers
    Origin and Sec-Fetch-Site, by which a browser tells whose page asks.
    """
    named = HOST.fullmatch(host)
    is_allowed = named is not None and not {host.lower(), named[1].lower()}.isdisjoint(
        allowed_hosts
    )
    if not is_allowed:
        if not is_loopback(peer or ""):
            return "the control API answers this machine only, or by a name that --allow-host gives"
        if named is None or not is_loopback(named[1].strip("[]").lower()):
            return "the Host header is no name of this machine"
    is_foreign = fetch_site not in (None, "same-origin", "none")  # none: a person typed the URL
    if is_foreign or (origin is not None and origin != f"http://{host}"):
        return "the request comes from another site's page"
    return None
