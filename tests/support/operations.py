"""The API's operations as its page has them: calls, requests and answers, written down as they are.

Nothing here is computed by the package. `test_operations` holds it against every transport.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
from support.answers import ok, payload, rm_error

from rm_voucher import Response, Voucher, VoucherClient

BATCH = "EhQKCE1lcmNoYW50EJXVzd3wraqTORIYCgxWb3VjaGVyQmF0Y2gQ_4eJj7-n9MgW"
BASIC = "Basic " + base64.b64encode(b"client-id:client-secret").decode()
WRONG_METHOD = Response(status=405)


@attrs.frozen
class Sent:
    """One request: in the table as it should be, later as it was."""

    method: str
    url: str  # in the table, API: or OAUTH: stand for scheme, host and port
    body: bytes = b""
    authorization: str = "Bearer token"


@attrs.frozen
class Row:
    """A call, the requests it makes, the example payloads that answer, what it returns."""

    here: str  # as docs/api.md calls it
    call: Callable[[VoucherClient], Any]
    sent: list[Sent]
    answers: list[str | Response]
    returned: object
    shown: Callable[[Any], object]


def shown_voucher(voucher: Voucher) -> object:
    expires_at = voucher.expiry and voucher.expiry.expires_at
    return (
        voucher.code,
        voucher.status,
        voucher.type,
        voucher.amount_sen,
        voucher.minimum_spend_sen,
        expires_at and expires_at.isoformat(),
        voucher.redeemed_at and voucher.redeemed_at.isoformat(),
        voucher.used_at and voucher.used_at.isoformat(),
    )


def shown_page(page: Any) -> object:
    return [shown_voucher(item) for item in page.items], page.cursor, page.count


def shown_batch(batch: Any) -> object:
    return batch.label, batch.amount_sen, batch.balance_quantity, batch.static_code


def shown_batches(page: Any) -> object:
    return [shown_batch(batch) for batch in page.items], page.cursor, page.count


GOT = (
    *("NAklEfbVdV", "VOID", "GIFT", 0, 0, "2019-01-06T17:19:35+00:00"),
    *("2018-09-28T17:19:35+00:00", "2018-09-28T17:19:44.686549+00:00"),
)
MEMBERS = (
    *("rms@xR43u4bRhUU", "REDEEMED", "CASH", 100, 0, "2020-11-26T04:33:04+00:00"),
    *("2020-11-25T04:33:04+00:00", None),
)
MEMBERS_USED = (*MEMBERS[:1], "VOID", *MEMBERS[2:7], "2020-11-25T05:58:55+00:00")
MEMBERS_OTHER = (
    *("ZQYaS03TJit", "REDEEMED", "CASH", 100, 0, "2020-11-26T05:26:01+00:00"),
    *("2020-11-25T05:26:01+00:00", None),
)
OF_BATCH = (
    *("UUEra22VSy2", "REDEEMED", "CASH", 100, 0, "2050-12-31T23:59:59+00:00"),
    *("2019-03-22T04:58:38+00:00", None),
)
REINSTATED = (
    *("8JwpM3BC", "REDEEMED", "CASH", 200, 100, "2025-05-08T03:36:17+00:00"),
    *("2025-04-08T03:36:17+00:00", "2025-04-08T03:36:22+00:00"),
)
REDEEMED = (
    *("REDEEMED", "CASH", 100, 100, "2025-06-15T09:18:05+00:00"),
    *("2025-06-13T09:18:05+00:00", None),
)
BATCHES = [
    ("Shell Voucher", 10000, 0, None),
    ("Wedding", None, 0, None),
    ("ALA10OFF", None, 48, "ALA10OFF"),
]
WEDDING = payload("list-batches")["items"][1]["key"]
WHO = "countryCode=60&phoneNumber=123456789"
ROWS = {
    "issue": Row(
        "client.issue",
        lambda client: client.issue(BATCH),
        [Sent("POST", f"API:/v3/voucher-batch/{BATCH}/issue", b"{}")],
        ["issue-voucher"],
        ("NAklEfbVdV", "http://api.local.rm:8080/qr/4118165203679668885/voucher/NAklEfbVdV"),
        lambda issued: (issued.code, issued.qr_url),
    ),
    "get": Row(
        "client.get",
        lambda client: client.get("NAklEfbVdV"),
        [Sent("POST", "API:/v3/voucher/NAklEfbVdV", b"{}")],
        ["get-voucher"],
        GOT,
        shown_voucher,
    ),
    "get, by the other method": Row(
        "client.get",
        lambda client: client.get("rms@A#1"),
        [
            Sent("POST", "API:/v3/voucher/rms@A%231", b"{}"),
            Sent("GET", "API:/v3/voucher/rms@A%231"),
        ],
        [
            WRONG_METHOD,
            ok({"item": {**payload("get-voucher")["item"], "code": "rms@A#1"}, "code": "SUCCESS"}),
        ],
        ("rms@A#1", *GOT[1:]),
        shown_voucher,
    ),
    "void": Row(
        "client.void",
        lambda client: client.void("NAklEfbVdV"),
        [Sent("POST", "API:/v3/voucher/NAklEfbVdV/void", b"{}")],
        ["void-voucher"],
        GOT,
        shown_voucher,
    ),
    "void, with store and instant": Row(
        "client.void",
        lambda client: client.void(
            "NAklEfbVdV",
            store_id="617",
            used_at=datetime(2026, 1, 2, 3, 4, 5, 6, timezone(timedelta(hours=8))),
        ),
        [
            Sent(
                "POST",
                "API:/v3/voucher/NAklEfbVdV/void",
                b'{"storeId":"617","usedAt":"2026-01-01T19:04:05.000006Z"}',
            )
        ],
        ["void-voucher"],
        GOT,
        shown_voucher,
    ),
    "void, with a whole second": Row(
        "client.void",
        lambda client: client.void("NAklEfbVdV", used_at=datetime(2026, 1, 1, tzinfo=UTC)),
        [
            Sent(
                "POST",
                "API:/v3/voucher/NAklEfbVdV/void",
                b'{"usedAt":"2026-01-01T00:00:00Z"}',
            )
        ],
        ["void-voucher"],
        GOT,
        shown_voucher,
    ),
    "reinstate": Row(
        "client.reinstate",
        lambda client: client.reinstate("8JwpM3BC", pin="123456"),
        [Sent("PATCH", "API:/v3/voucher/8JwpM3BC/reinstate", b'{"pin":"123456"}')],
        ["reinstate-voucher"],
        REINSTATED,
        shown_voucher,
    ),
    "reinstate, with a reason": Row(
        "client.reinstate",
        lambda client: client.reinstate("8JwpM3BC", pin="1", reason="<wrong> & ünkind"),
        [
            Sent(
                "PATCH",
                "API:/v3/voucher/8JwpM3BC/reinstate",
                b'{"pin":"1","reason":"\\u003cwrong\\u003e \\u0026 \xc3\xbcnkind"}',
            )
        ],
        ["reinstate-voucher"],
        REINSTATED,
        shown_voucher,
    ),
    "redeem": Row(
        "client.redeem",
        lambda client: client.redeem(["V2FrkTnh", "32zSv2W8", "344PNV5r"]),
        [Sent("POST", "API:/v3/vouchers/redeem", b'{"codes":["V2FrkTnh","32zSv2W8","344PNV5r"]}')],
        ["redeem-vouchers"],
        [(code, *REDEEMED) for code in ("V2FrkTnh", "32zSv2W8", "344PNV5r")],
        lambda vouchers: [shown_voucher(voucher) for voucher in vouchers],
    ),
    "vouchers": Row(
        "client.vouchers",
        lambda client: client.vouchers(BATCH),
        [Sent("GET", f"API:/v3/voucher-batch/{BATCH}/vouchers")],
        ["list-batch-vouchers"],
        ([OF_BATCH], None, 1),
        shown_page,
    ),
    "vouchers, from a cursor": Row(
        "client.vouchers",
        lambda client: client.vouchers(BATCH, cursor="a+b/c="),
        [Sent("GET", f"API:/v3/voucher-batch/{BATCH}/vouchers?cursor=a%2Bb%2Fc%3D")],
        ["list-batch-vouchers"],
        ([OF_BATCH], None, 1),
        shown_page,
    ),
    "batch": Row(
        "client.batch",
        lambda client: client.batch(WEDDING),
        [Sent("GET", f"API:/v3/voucher-batch/{WEDDING}")],
        [ok({"item": payload("list-batches")["items"][1], "code": "SUCCESS"})],
        BATCHES[1],
        shown_batch,
    ),
    "batch, by the list": Row(
        "client.batch",
        lambda client: client.batch(WEDDING),
        [
            Sent("GET", f"API:/v3/voucher-batch/{WEDDING}"),
            Sent("GET", "API:/v3/voucher-batches"),
        ],
        [rm_error("PAGE_NOT_FOUND", 404), "list-batches"],
        BATCHES[1],
        shown_batch,
    ),
    "batches": Row(
        "client.batches",
        lambda client: client.batches(),
        [Sent("GET", "API:/v3/voucher-batches")],
        ["list-batches"],
        (BATCHES, None, 3),
        shown_batches,
    ),
    "batches, chosen": Row(
        "client.batches",
        lambda client: client.batches(status="COMPLETED", is_static=False, cursor="x"),
        [
            Sent(
                "GET",
                "API:/v3/voucher-batches?filter=%7B%22isStatic%22%3Afalse%2C%22status%22%3A"
                "%22COMPLETED%22%7D&cursor=x",
            )
        ],
        ["list-batches"],
        (BATCHES, None, 3),
        shown_batches,
    ),
    "member's vouchers": Row(
        "client.member(…).vouchers",
        lambda client: client.member("60", "123456789").vouchers(),
        [Sent("GET", f"API:/v3/loyalty/me/vouchers?{WHO}")],
        ["member-vouchers"],
        ([MEMBERS_OTHER, MEMBERS], None, 2),
        shown_page,
    ),
    "member's vouchers, a page of them": Row(
        "client.member(…).vouchers",
        lambda client: client.member("60", "123456789").vouchers(limit=2, cursor="a="),
        [Sent("GET", f"API:/v3/loyalty/me/vouchers?{WHO}&limit=2&cursor=a%3D")],
        ["member-vouchers"],
        ([MEMBERS_OTHER, MEMBERS], None, 2),
        shown_page,
    ),
    "member's voucher": Row(
        "client.member(…).get",
        lambda client: client.member("60", "123456789").get("rms@xR43u4bRhUU"),
        [Sent("GET", f"API:/v3/loyalty/me/voucher/rms@xR43u4bRhUU?{WHO}")],
        ["member-voucher"],
        MEMBERS,
        shown_voucher,
    ),
    "member redeems": Row(
        "client.member(…).redeem",
        lambda client: client.member("60", "123456789").redeem("rms@xR43u4bRhUU"),
        [Sent("POST", f"API:/v3/loyalty/me/voucher/rms@xR43u4bRhUU/redeem?{WHO}")],
        ["member-redeem"],
        MEMBERS_USED,
        shown_voucher,
    ),
    "request": Row(
        "client.request",
        lambda client: client.request(
            "PATCH",
            "/v3/voucher/a%20b/x",
            query={"a b": "1&2", "c": "é", "none": None},  # type: ignore[dict-item] # left out
            json={"z": [1, None, True], "a": {"é": "<&>"}},
        ),
        [
            Sent(
                "PATCH",
                "API:/v3/voucher/a%20b/x?a%20b=1%262&c=%C3%A9",
                b'{"a":{"\xc3\xa9":"\\u003c\\u0026\\u003e"},"z":[1,null,true]}',
            )
        ],
        ["webhook-callback"],
        (200, payload("webhook-callback")),
        lambda answer: (answer.status, json.loads(answer.body)),
    ),
    "request, without a body": Row(
        "client.request",
        lambda client: client.request("DELETE", "/v3/x"),
        [Sent("DELETE", "API:/v3/x")],
        [Response(status=204)],
        (204, b""),
        lambda answer: (answer.status, answer.body),
    ),
}
TOKEN_ROWS = {
    "token": Row(
        "ClientCredentialsToken",
        lambda client: client.get("NAklEfbVdV"),
        [
            Sent("POST", "OAUTH:/v1/token", b'{"grantType":"client_credentials"}', BASIC),
            Sent("POST", "API:/v3/voucher/NAklEfbVdV", b"{}", "Bearer example-accesstoken"),
        ],
        ["token-client-credentials", "get-voucher"],
        GOT,
        shown_voucher,
    ),
    "refresh": Row(
        "ClientCredentialsToken",
        lambda client: None,  # see `twice`
        [
            Sent("POST", "OAUTH:/v1/token", b'{"grantType":"client_credentials"}', BASIC),
            Sent("POST", "API:/v3/voucher/NAklEfbVdV", b"{}", "Bearer example-accesstoken"),
            Sent(
                "POST",
                "OAUTH:/v1/token",
                b'{"grantType":"refresh_token","refreshToken":"example-refreshtoken"}',
                BASIC,
            ),
            Sent("POST", "API:/v3/voucher/NAklEfbVdV", b"{}", "Bearer example-accesstoken"),
        ],
        ["token-client-credentials", "get-voucher", "token-refresh", "get-voucher"],
        GOT,
        shown_voucher,
    ),
}
