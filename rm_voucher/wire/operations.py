"""The API's operations without I/O: ``build_…`` gives a request, ``parse_…`` reads its answer.

Facts about the API stand here and in `converters`, each with its page. `requests` has the common
parts of all requests, `responses` those of all answers. Nothing here knows a clock, a token or a
socket.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from urllib.parse import unquote

import attrs
from yarl import URL

from rm_voucher.converters import format_time, structure, structure_all
from rm_voucher.exceptions import APIError, DecodeError, InvalidRequestError
from rm_voucher.models import (
    IssuedVoucher,
    Page,
    Token,
    Voucher,
    VoucherBatch,
    VoucherStatus,
)
from rm_voucher.settings import Credentials, Environment
from rm_voucher.signing.signature import canonical_json
from rm_voucher.transport.base import Request, Response
from rm_voucher.wire.error_codes import ERROR_CODES
from rm_voucher.wire.requests import (
    JSON,
    MAX_SINGLE_BYTES,
    build,
    climbs,
    fold,
    has_control,
    json_body,
    segment,
)
from rm_voucher.wire.responses import loose_object, read_body, read_page, success
from rm_voucher.wire.strict_fields import strict_fields

_UNKNOWN_PATH_CODES = frozenset(
    {
        "INVALID_HTTP_METHOD",
        "METHOD_NOT_ALLOWED",
        "NO_METHOD",
        "API_ENDPOINT_NOT_FOUND",
        "PAGE_NOT_FOUND",
    }
)
# RFC 3986's characters of a path, percent-encoding included.
_PATH = re.compile(r"(/([A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)+")
_TOKEN_PATH = "/v1/token"  # noqa: S105 - no secret
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def build_issue(environment: Environment, batch_key: str) -> Request:
    """Build *Issue Voucher*."""
    return _build_issue(
        environment.api_url, segment("batch_key", batch_key, is_escaped=environment.escapes_paths)
    )


@functools.lru_cache(maxsize=32)  # all issues of a batch are the same request
def _build_issue(api_url: str, key: str) -> Request:
    return build(api_url, "issue", "POST", "/v3/voucher-batch/{key}/issue", key, json={})


def _part(environment: Environment, name: str, text: str) -> str:
    return segment(name, text, is_escaped=environment.escapes_paths)


def build_get(environment: Environment, code: str, *, method: str = "POST") -> Request:
    """Build *Get Voucher By Code*.

    The page says POST with ``{}``, every SDK of RM's sends GET without a body.
    """
    path, part = "/v3/voucher/{code}", _part(environment, "code", code)
    return build(
        environment.api_url, "get", method, path, part, json=None if method == "GET" else {}
    )


def build_void(
    environment: Environment,
    code: str,
    *,
    store_id: str | None = None,
    used_at: datetime | None = None,
) -> Request:
    """Build *Void Voucher*. No page has ``usedAt``; RM's Go SDK sends it."""
    path, part = "/v3/voucher/{code}/void", _part(environment, "code", code)
    body: dict[str, str] = {}
    if store_id is not None:
        if not isinstance(store_id, str) or not store_id:
            raise InvalidRequestError.refused("store_id must be text, and not empty.")
        body["storeId"] = store_id
    if used_at is not None:
        if not isinstance(used_at, datetime) or used_at.tzinfo is None:
            raise InvalidRequestError.refused("used_at must be a datetime with a time zone.")
        try:
            body["usedAt"] = format_time(used_at)
        except OverflowError:
            raise InvalidRequestError.refused("used_at is in no year of UTC.") from None
    return build(environment.api_url, "void", "POST", path, part, json=body)


def build_vouchers(
    environment: Environment, batch_key: str, *, cursor: str | None = None
) -> Request:
    """Build *Get Voucher Batch By Key*: the vouchers of a batch, a page."""
    path, part = "/v3/voucher-batch/{key}/vouchers", _part(environment, "batch_key", batch_key)
    return build(
        environment.api_url,
        "vouchers",
        "GET",
        path,
        part,
        query={"cursor": cursor},
        is_single=False,
    )


def build_batch(environment: Environment, batch_key: str) -> Request:
    """Build the look-up of one batch, which RM's SDKs have; its page does not show it any more."""
    path, part = "/v3/voucher-batch/{key}", _part(environment, "batch_key", batch_key)
    return build(environment.api_url, "batch", "GET", path, part)


def build_batches(
    environment: Environment,
    *,
    status: str | None = None,
    is_static: bool | None = None,
    cursor: str | None = None,
) -> Request:
    """Build *Get Voucher Batches*. The filter is a JSON object in the query, as RM's SDKs send."""
    if not isinstance(status, str | None) or not isinstance(is_static, bool | None):
        raise InvalidRequestError.refused("status must be text, and is_static true or false.")
    wanted = {"status": status, "isStatic": is_static}
    chosen = {name: value for name, value in wanted.items() if value is not None}
    return build(
        environment.api_url,
        "batches",
        "GET",
        "/v3/voucher-batches",
        query={"filter": json_body(chosen).decode() if chosen else None, "cursor": cursor},
        is_single=False,
    )


def build_reinstate(
    environment: Environment, code: str, *, pin: str, reason: str | None = None
) -> Request:
    """Build *Reinstate Voucher*. The PIN is that of a user of the merchant portal."""
    if not isinstance(pin, str) or not pin:
        raise InvalidRequestError.refused("pin must be text, and not empty.")
    if not isinstance(reason, str | None):
        raise InvalidRequestError.refused("reason must be text.")
    path, part = "/v3/voucher/{code}/reinstate", _part(environment, "code", code)
    body = {"pin": pin} if reason is None else {"pin": pin, "reason": reason}
    return build(environment.api_url, "reinstate", "PATCH", path, part, json=body)


def build_redeem(environment: Environment, codes: Sequence[str]) -> Request:
    """Build *Bulk Redeem Vouchers*."""
    body = {"codes": list(codes)}
    return build(
        environment.api_url, "redeem", "POST", "/v3/vouchers/redeem", json=body, is_single=False
    )


def build_member_vouchers(
    environment: Environment,
    country_code: str,
    phone_number: str,
    *,
    limit: int | None = None,
    cursor: str | None = None,
) -> Request:
    """Build *Get Loyalty Member Vouchers*, a page."""
    if limit is not None and (type(limit) is not int or limit < 1):
        raise InvalidRequestError.refused("limit must be a whole number, 1 or more.")
    query = {
        **_member(country_code, phone_number),
        "limit": None if limit is None else str(limit),
        "cursor": cursor,
    }
    path = "/v3/loyalty/me/vouchers"
    return build(environment.api_url, "member vouchers", "GET", path, query=query, is_single=False)


def build_member_get(
    environment: Environment, country_code: str, phone_number: str, code: str
) -> Request:
    """Build *Get Loyalty Member Voucher*."""
    path, part = "/v3/loyalty/me/voucher/{code}", _part(environment, "code", code)
    query = _member(country_code, phone_number)
    return build(environment.api_url, "member get", "GET", path, part, query=query)


def build_member_redeem(
    environment: Environment, country_code: str, phone_number: str, code: str
) -> Request:
    """Build *Redeem Loyalty Member Voucher*. The page shows no body."""
    path, part = "/v3/loyalty/me/voucher/{code}/redeem", _part(environment, "code", code)
    query = _member(country_code, phone_number)
    return build(environment.api_url, "member redeem", "POST", path, part, query=query)


def _member(country_code: str, phone_number: str) -> dict[str, str | None]:
    for name, text in (("country_code", country_code), ("phone_number", phone_number)):
        if not isinstance(text, str) or not re.fullmatch("[0-9]{1,15}", text):
            raise InvalidRequestError.refused(
                f"{name} must be digits, without a plus sign or spaces."
            )
    return {"countryCode": country_code, "phoneNumber": phone_number}


def build_any(
    environment: Environment,
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    json: object | None = None,
) -> Request:
    """Build a request that no page documents. ``path`` is written as it goes on the wire."""
    if method not in _METHODS:
        raise InvalidRequestError.refused(f"method must be one of {', '.join(_METHODS)}.")
    if not isinstance(path, str) or not _PATH.fullmatch(path) or _leaves_its_place(path):
        raise InvalidRequestError.refused(
            "path must be an absolute path without query, its parts percent-encoded "
            "(urllib.parse.quote(part, safe='')), none of them empty, only dots, or with a slash."
        )
    if method == "GET" and json is not None:
        raise InvalidRequestError.refused("A GET carries no body.")
    if not isinstance(query, Mapping | None):
        raise InvalidRequestError.refused("query must map names to text.")
    request = build(
        environment.api_url, "request", method, path, query=query, json=json, is_single=False
    )
    _check_json(json)  # last, because writing it refuses a value that contains itself
    return attrs.evolve(request, template="")  # the path may have a code


def _leaves_its_place(path: str) -> bool:
    # Decoded twice, because a gateway may decode once before the server does.
    text = unquote(unquote(path))
    return has_control(text) or any(climbs(part) for part in re.split(r"[/\\]", fold(text))[1:])


def _check_json(json: object) -> None:
    """Refuse a value, at any depth, that RM does not document how to sign."""
    values = [json]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            values.extend(value.values())
        elif isinstance(value, list | tuple):
            values.extend(value)
        elif isinstance(value, float) or (isinstance(value, int) and abs(value) > 2**53):
            raise InvalidRequestError.refused(
                "How RM signs fractions and integers beyond 2**53 is not documented: send text."
            )
        elif not isinstance(value, str | int | None):
            raise InvalidRequestError.refused(f"json has a {type(value).__name__}; send text.")


def build_token(environment: Environment, credentials: Credentials) -> Request:
    """Build *Client Credentials*: the first token. It is not signed."""
    return _build_token(environment, credentials, {"grantType": "client_credentials"})


def build_refresh(
    environment: Environment, credentials: Credentials, refresh_token: str
) -> Request:
    """Build *Refresh Token*. The answer has a new refresh token: the old one is spent."""
    body = {"grantType": "refresh_token", "refreshToken": refresh_token}
    return _build_token(environment, credentials, body)


def _build_token(
    environment: Environment, credentials: Credentials, body: Mapping[str, str]
) -> Request:
    identity = f"{credentials.client_id}:{credentials.client_secret}".encode()
    return Request(
        operation="token",
        method="POST",
        url=URL(environment.oauth_url + _TOKEN_PATH, encoded=True),
        headers={
            "Authorization": f"Basic {base64.b64encode(identity).decode()}",
            "Content-Type": JSON,
        },
        body=canonical_json(body),
        max_answer_bytes=MAX_SINGLE_BYTES,
        template=_TOKEN_PATH,
    )


def parse_issue(response: Response) -> IssuedVoucher:
    """Read the answer to `build_issue`. Raises `APIError` or `DecodeError`, as all parsers do.

    An answer that is no success, or no JSON, and has a voucher in it, proves neither. Its code is
    kept.
    """
    try:
        item = success(response).get("item")
    except (APIError, DecodeError) as exc:
        voucher = _voucher_in(response)
        if voucher is None:
            raise
        words = "expected an error without a voucher @ $" if isinstance(exc, APIError) else str(exc)
        raise DecodeError(words, voucher=voucher) from None
    return structure(item, IssuedVoucher, path="$.item")


def _voucher_in(response: Response) -> IssuedVoucher | None:
    try:
        voucher = structure(loose_object(response).get("item"), IssuedVoucher)
        voucher.code.encode()  # what is no text can be kept nowhere
    except (DecodeError, UnicodeEncodeError):
        return None
    is_text = voucher.qr_url.encode(errors="replace").decode() == voucher.qr_url
    return voucher if is_text else attrs.evolve(voucher, qr_url="")


def parse_get(response: Response, code: str) -> Voucher:
    """Read the answer to `build_get` or `build_member_get`: the voucher that was asked for."""
    return _checked_code(_voucher(response, "get"), code)


def _voucher(response: Response, operation: str) -> Voucher:
    strict = strict_fields(operation)
    return structure(success(response).get("item"), Voucher, path="$.item", strict=strict)


def parse_void(response: Response, code: str) -> Voucher:
    """Read the answer to `build_void`: the voucher that was asked for, and it is void."""
    return _shown(response, "void", code, {VoucherStatus.VOID})


def parse_reinstate(response: Response, code: str) -> Voucher:
    """Read the answer to `build_reinstate`: the voucher that was asked for, void no more.

    The page shows it REDEEMED. RM does not document its status where no redemption preceded the
    void.
    """
    return _shown(response, "reinstate", code, set(VoucherStatus) - {VoucherStatus.VOID})


def parse_member_redeem(response: Response, code: str) -> Voucher:
    """Read the answer to `build_member_redeem`: the voucher that was asked for, redeemed or used.

    The page's example turns it from REDEEMED to VOID.
    """
    statuses = {VoucherStatus.REDEEMED, VoucherStatus.VOID}
    return _shown(response, "member redeem", code, statuses)


def parse_redeem(response: Response) -> tuple[Voucher, ...]:
    """Read the answer to `build_redeem`: a list, under ``item``.

    A voucher that does not show its code and status is left out: it proves nothing, and what the
    others show stands.
    """
    items = success(response).get("item")
    if not isinstance(items, list):
        raise DecodeError("expected a list @ $.item")
    strict = strict_fields("redeem")
    vouchers = structure_all(items, Voucher, path="$.item")
    return tuple(one for one in vouchers if one.code and strict.isdisjoint(one.misfits))


def _checked_code(voucher: Voucher, code: str) -> Voucher:
    """Return the voucher, if it shows the code that was asked for."""
    # Whether codes are case-sensitive is not documented.
    if voucher.code is None or voucher.code.casefold() != code.casefold():
        raise DecodeError("expected the code that was asked for @ $.item.code")
    return voucher


def _shown(
    response: Response, operation: str, code: str, statuses: Container[VoucherStatus | None]
) -> Voucher:
    """Return the voucher in the answer to a change, which must show the change."""
    voucher = _voucher(response, operation)
    if voucher.status not in statuses:
        raise DecodeError("expected the status that the operation leads to @ $.item.status")
    return _checked_code(voucher, code)


async def parse_vouchers(response: Response) -> Page[Voucher]:
    """Read the answer to `build_vouchers` or `build_member_vouchers`."""
    return await read_page(response, Voucher)


async def parse_batches(response: Response) -> Page[VoucherBatch]:
    """Read the answer to `build_batches`."""
    return await read_page(response, VoucherBatch)


def parse_batch(response: Response, batch_key: str) -> VoucherBatch:
    """Read the answer to `build_batch`: the batch that was asked for."""
    item = success(response).get("item")
    batch = structure(item, VoucherBatch, path="$.item", strict=strict_fields("batch"))
    if batch.key != batch_key:
        raise DecodeError("expected the batch that was asked for @ $.item.key")
    return batch


def parse_token(response: Response) -> Token:
    """Read the answer to `build_token` or `build_refresh`. It carries no ``code``."""
    token = structure(read_body(response), Token)
    if not fits_header(token.access_token):
        raise DecodeError("expected a token that fits a header @ $.accessToken")
    return token


def fits_header(token: str) -> bool:
    """Return whether a token can stand in ``Authorization`` and nowhere else."""
    return token.isascii() and token.isprintable() and token != "" and " " not in token


def parse_any(response: Response) -> Response:
    """Return the answer to `build_any` as it is, unless it is an error."""
    read_body(response)
    return response


def is_unknown_path(error: APIError) -> bool:
    """Return whether the server knows no such path, or not with this method."""
    if error.code:
        info = ERROR_CODES.get(error.code)
        return info is not None and info.code in _UNKNOWN_PATH_CODES
    return error.http_status in (404, 405)
