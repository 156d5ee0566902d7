"""The way to the servers, where it leads through an HTTP proxy."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping

import attrs
from yarl import URL

from rm_voucher.arguments import check_type
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.redaction import hide_locals
from rm_voucher.settings import is_loopback

__all__ = ["Proxy"]


@attrs.frozen
class Proxy:
    """An HTTP proxy, such as a company's, through which https goes in a tunnel (``CONNECT``).

    Plain http, which only leads to this machine or to a development server, does not go through it.

    Args:
        url: ``http://host:port``, or ``http://user:password@host:port``, percent-encoded.
        no_proxy: hosts that are reached without it, as in the variable ``NO_PROXY``: separated by
            commas, each a name (which stands for the names below it, too), ``name:port`` or ``*``.

    Nothing of user and password appears in the repr. Raises `ConfigurationError`.
    """

    url: str
    no_proxy: str = ""
    headers: Mapping[str, str] = attrs.field(init=False, repr=False, eq=False)
    """What the proxy is told of who asks."""

    def __attrs_post_init__(self) -> None:
        bare, headers = _split(self.url)
        object.__setattr__(self, "url", bare)  # frozen; still under construction
        object.__setattr__(self, "headers", headers)
        if not isinstance(self.no_proxy, str):
            raise ConfigurationError("no_proxy must be text: hosts, separated by commas.")

    @classmethod
    @hide_locals
    def from_env(cls, env: Mapping[str, str] | None = None) -> Proxy | None:
        """Return the proxy of ``HTTPS_PROXY`` and ``NO_PROXY``, or None where none is set.

        The names in small letters win, as elsewhere. Raises `ConfigurationError`.
        """
        env = os.environ if env is None else env
        check_type("env", env, Mapping)
        url, no_proxy = (
            env.get(name.lower(), env.get(name, "")).strip() for name in ("HTTPS_PROXY", "NO_PROXY")
        )
        try:
            return cls(url, no_proxy) if url else None
        except ConfigurationError as exc:
            raise ConfigurationError(f"HTTPS_PROXY can't be used: {exc}") from None

    def leads_to(self, url: URL) -> bool:
        """Return whether a request to a URL goes through this proxy."""
        host = url.host or ""
        if url.scheme != "https" or is_loopback(host):
            return False
        for text in self.no_proxy.lower().split(","):
            name = text.strip().lstrip(".")
            if name in ("*", host, f"{host}:{url.port}") or (name and host.endswith(f".{name}")):
                return False
        return True


def _split(text: str) -> tuple[str, dict[str, str]]:
    """Return a proxy's URL without its user, and the header that names the user."""
    check_type("A proxy's URL", text, str)
    try:
        url = URL(text if "://" in text else f"http://{text}")
        bare = url.origin()
    except ValueError:
        bare = url = URL()
    if url.scheme != "http":
        raise ConfigurationError(
            "A proxy's URL, as in HTTPS_PROXY, must be http://host:port; no other kind is known."
        )
    if url.user is None:
        return str(bare), {}
    identity = f"{url.user}:{url.password or ''}".encode()
    return str(bare), {"Proxy-Authorization": f"Basic {base64.b64encode(identity).decode()}"}


Proxy.__init__ = hide_locals(Proxy.__init__)  # type: ignore[method-assign] # attrs made it
