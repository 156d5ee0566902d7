"""Checks of what the servers say: whose they are, the time, the token, the signature, the scope.

They send reads only, and buy a token. RM does not document whether a new token ends earlier ones;
a client that meets such an end buys another by itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import attrs

from rm_voucher import (
    APIError,
    AuthenticationError,
    Credentials,
    DecodeError,
    Environment,
    PermissionDeniedError,
    Response,
    RetryPolicy,
    SignatureError,
    StaticToken,
    VoucherClient,
    VoucherError,
)
from rm_voucher.auth.client_credentials import ClientCredentialsToken
from rm_voucher.calls.server_clock import WORTH_A_WARNING_S, proven_offset_s
from rm_voucher.cli.doctor.patient import FAILED, REFUSED, TIMEOUT, Fault, Patient, Unasked
from rm_voucher.cli.doctor.settings import other_environment
from rm_voucher.transport.aiohttp import AiohttpTransport
from rm_voucher.transport.base import Transport
from rm_voucher.wire.operations import build_batches
from rm_voucher.wire.responses import json_object

_ONCE = RetryPolicy(max_attempts=1)
_WINDOW_S = 120.0  # RM's page "Signature Algorithm"


@contextlib.asynccontextmanager
async def _transport(patient: Patient) -> AsyncIterator[Transport]:
    transport = AiohttpTransport(proxy=patient.proxy, ssl_context=patient.tls)
    try:
        yield transport
    finally:
        await transport.aclose()


async def check_server(patient: Patient) -> str:
    """What answers is RM's API, or as good as it: asked without a token, it refuses in JSON."""
    if not patient.is_reached:
        raise Unasked("the servers can't be reached")
    request = attrs.evolve(build_batches(patient.known_environment()), timeout=TIMEOUT)
    async with _transport(patient) as transport:
        asked_at = patient.clock()
        try:
            answer = await transport.send(request)
        except VoucherError as exc:
            patient.is_reached = False
            raise Fault(
                f"The API gives no answer: {exc}.", "Try again later; the server may be down."
            ) from None
    if "date" in answer.headers:
        patient.date = answer.headers["date"], asked_at, patient.clock()
    if _is_rms(answer):
        return f"it answers as Revenue Monster's API does (HTTP {answer.status})."
    patient.is_reached = False
    kind = answer.headers.get("content-type", "nothing").partition(";")[0]
    told = f"It answers HTTP {answer.status} with {kind}, and not as Revenue Monster's API does."
    if answer.status >= 500:
        raise Fault(told, "The server or its gateway is down: try again later.")
    raise Fault(
        told,
        "Another server answers in its place: open the URL in a browser, for a captive portal that "
        "wants a login, or see whether RM_API_URL is right.",
    )


def _is_rms(answer: Response) -> bool:
    body = json_object(answer)
    return isinstance(body.get("error"), dict) or body.get("code") == "SUCCESS"


async def check_clock(patient: Patient) -> str:
    """The clock of this machine, by the server's ``Date``."""
    if patient.date is None:
        raise Unasked("no answer came with the server's time")
    date, asked_at, came_at = patient.date
    offset_s = proven_offset_s(date, sent_at=asked_at, received_at=came_at)
    if offset_s is None:
        raise Unasked("the server's time can't be read")
    if abs(offset_s) <= WORTH_A_WARNING_S:
        return f"it is within {max(1, round(came_at - asked_at) + 1)} s of the server's."
    way = "behind" if offset_s > 0 else "ahead of"
    raise Fault(
        f"This machine's clock is {abs(offset_s):.0f} s {way} the server's; RM refuses what is "
        f"more than {_WINDOW_S:.0f} s off.",
        "Set the clock, best by NTP (timedatectl set-ntp true).",
    )


async def check_token(patient: Patient) -> str:
    """The client id and the secret are accepted: a token is bought."""
    credentials = patient.credentials
    if credentials is None:
        raise Unasked("the settings are not complete")
    if not patient.is_reached:
        raise Unasked("the servers can't be reached")
    try:
        patient.token = await _buy(patient, credentials, patient.known_environment())
    except APIError as exc:
        if not exc.code:
            raise _not_rms(exc) from None
        remedy = exc.hint
        if isinstance(exc, AuthenticationError):
            remedy = f"{exc.hint} {await _other(patient, credentials)}".rstrip()
        code = REFUSED if isinstance(exc, AuthenticationError) else FAILED
        raise Fault(_told(exc, "No token is given"), remedy, exit_code=code) from None
    except DecodeError as exc:
        raise _not_rms(exc) from None
    except VoucherError as exc:
        raise Fault(f"No token is given: {exc}.", "Try again later.") from None
    return "the client id and secret are accepted."


def _told(exc: APIError, what: str) -> str:
    status = f" (HTTP {exc.http_status})" if exc.http_status else ""
    return f"{what}: {exc.code}{status}."


def _not_rms(exc: VoucherError) -> Fault:
    return Fault(
        f"The server of tokens does not answer as Revenue Monster's does: {exc}.",
        "See whether RM_OAUTH_URL is right, and whether another server answers in its place.",
    )


async def _buy(patient: Patient, credentials: Credentials, environment: Environment) -> str:
    async with _transport(patient) as transport:
        source = ClientCredentialsToken(
            credentials, environment, transport, retry=_ONCE, timeout=TIMEOUT
        )
        return await source.token()


async def _other(patient: Patient, credentials: Credentials) -> str:
    """Say whether credentials that were refused are of RM's other environment."""
    other = other_environment(patient.known_environment())
    if other is None:
        return ""
    name, environment = other
    if not patient.tries_other:
        return f"--try-other-environment shows the {name} the secret, and says whether it is its."
    try:
        await _buy(patient, credentials, environment)
    except VoucherError:
        return f"The {name} refuses them as well."
    return f"They are the {name}'s: set RM_ENVIRONMENT={name}, or take this environment's."


async def check_signature(patient: Patient) -> str:
    """The key's public half is the one in the portal: a signed read is accepted."""
    if patient.credentials is None:
        raise Unasked("the settings are not complete")
    if patient.signer is None:
        raise Unasked("the private key can't be used")
    if patient.token is None:
        raise Unasked("there is no token")
    async with _transport(patient) as transport:
        client = VoucherClient(
            patient.credentials,
            environment=patient.known_environment(),
            transport=transport,
            signer=patient.signer,
            token_source=StaticToken(patient.token),
            retry=_ONCE,
            timeout=TIMEOUT,
        )
        async with client:
            try:
                patient.batches = len((await client.batches()).items)
            except VoucherError as exc:
                patient.listing_error = exc
    error = patient.listing_error
    if isinstance(error, SignatureError):
        raise _refused_signature(error)
    if isinstance(error, AuthenticationError):
        raise Fault(
            _told(error, "The API refuses the token that was bought just now"),
            "See whether the two servers are of one environment: RM_API_URL and RM_OAUTH_URL.",
            exit_code=REFUSED,
        )
    if error is not None:
        raise Unasked("the call was refused for another reason")
    return "it is accepted, so the private key is the pair of the public key in the portal."


def _refused_signature(error: SignatureError) -> Fault:
    remedy = error.hint
    if "timestamp" not in error.differs and not set(error.differs) - {"key", "signature"}:
        remedy += (
            " Upload the public half of this key in the portal, for this very application and "
            "environment, or name the key whose public half is there."
        )
    return Fault(_told(error, "It is refused"), remedy, exit_code=REFUSED)


async def check_scope(patient: Patient) -> str:
    """The application may do what is about vouchers."""
    error = patient.listing_error
    if isinstance(error, PermissionDeniedError):
        remedy = error.hint or "Give the application the scope manage_loyalty_voucher."
        raise Fault(_told(error, "The listing of batches is refused"), remedy, exit_code=REFUSED)
    if patient.batches is None:
        raise Unasked("no signed call was accepted")
    return "the application may list batches."


async def check_batches(patient: Patient) -> str:
    """The merchant's batches can be read."""
    error = patient.listing_error
    if isinstance(error, SignatureError | AuthenticationError | PermissionDeniedError):
        raise Unasked("no signed call was accepted")
    if error is not None:
        raise Fault(f"They can't be listed: {error}.", getattr(error, "hint", "") or "Try again.")
    if patient.batches is None:
        raise Unasked("no signed call was accepted")
    if not patient.batches:
        return "there is none yet: make one in the merchant portal."
    return f"{patient.batches} on the first page of the list."
