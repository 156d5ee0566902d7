"""The emulator as a server: what it is given, and the variables that a client of it needs."""

from __future__ import annotations

import asyncio
import secrets
import shlex
from pathlib import Path

from rm_voucher import ConfigurationError, Credentials
from rm_voucher.cli.output import say
from rm_voucher.emulator import Emulator

__all__ = ["make_emulator", "serve_forever"]


def make_emulator(
    batches: list[str],
    *,
    client_id: str | None,
    client_secret: str | None,
    public_key: Path | None,
) -> Emulator:
    """Return an emulator with ``KEY=QUANTITY`` batches; what is not given is generated.

    Raises `ConfigurationError`.
    """
    pem = None
    if public_key is not None:
        try:
            pem = public_key.read_bytes()
        except OSError as exc:
            raise ConfigurationError(f"{public_key} can't be read: {exc.strerror}.") from exc
    emulator = Emulator(
        client_id=client_id or f"emulator-{secrets.token_hex(6)}",
        client_secret=client_secret or secrets.token_urlsafe(24),
        public_key=pem,
    )
    for batch in batches:
        key, equals, quantity = batch.rpartition("=")
        if not equals or not key or not (quantity.isascii() and quantity.isdecimal()):
            raise ConfigurationError(f"--batch {batch!r}: write KEY=QUANTITY, like BREAKFAST=1000.")
        try:
            emulator.add_batch(key, key=key, quantity=int(quantity))
        except ValueError as exc:
            raise ConfigurationError(f"--batch {batch!r}: {exc}.") from exc
    return emulator


async def serve_forever(
    emulator: Emulator, *, host: str, port: int, credentials_out: Path | None
) -> None:
    """Serve until cancelled."""
    try:
        async with emulator.serve(host=host, port=port) as server:
            if credentials_out is not None:
                _write_variables(credentials_out, emulator, server.url)
            say(f"Emulator at {server.url} (no real vouchers). Ctrl-C ends it.")
            await asyncio.get_running_loop().create_future()
    except OSError as exc:
        raise ConfigurationError(f"The emulator can't listen on {host}:{port}: {exc}.") from exc


def _write_variables(path: Path, emulator: Emulator, url: str) -> None:
    """Write lines that a shell can source, readable by the owner only."""
    variables = {"RM_ENVIRONMENT": url, "RM_CLIENT_ID": emulator.client_id}
    variables["RM_CLIENT_SECRET"] = emulator.client_secret
    if isinstance(emulator.credentials, Credentials):
        # One line, so that every reader of such files can take it; the client reads \n as a break.
        pem = emulator.credentials.private_key_pem().decode()
        variables["RM_PRIVATE_KEY"] = pem.strip().replace("\n", "\\n")
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    try:
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text(text)
    except OSError as exc:
        raise ConfigurationError(f"{path} can't be written: {exc.strerror}.") from exc
