"""The tables of error codes: complete, classed and found in every spelling."""

from pathlib import Path

import pytest

from rm_voucher import (
    APIError,
    AuthenticationError,
    DuplicateRequestError,
    ExpiredError,
    InvalidRequestError,
    NotFoundError,
    OutOfStockError,
    PermissionDeniedError,
    RateLimitError,
    ServerError,
    SignatureError,
    VoucherStateError,
)
from rm_voucher.transport.base import Response
from rm_voucher.wire.error_codes import CODE_PATTERN, ERROR_CODES, CodeClass
from rm_voucher.wire.other_codes import OTHER_CODES, area_of
from rm_voucher.wire.responses import success

LISTED = [
    line
    for line in Path(__file__).with_name("rm_error_codes.txt").read_text().splitlines()
    if not line.startswith("#")
]
# Written down from RM's lists, independently of the package's table.
APPENDIX = {
    CodeClass.STATE: """
        VOUCHER_BATCH_NOT_FOUND VOUCHER_BATCH_EXPIRED VOUCHER_BATCH_NOT_ENOUGH_QUANTITY
        VOUCHER_INSUFFICIENT VOUCHER_SOLD_OUT VOUCHER_NOT_FOUND VOUCHER_NOT_ALLOW_VOID
        VOUCHER_NOT_REDEEMED VOUCHER_REDEEMED VOUCHER_REDEEMED_INVALID VOUCHER_REDEEM_MAX
        REDEMPTION_RULE_LIMIT_REACHED VOUCHER_OWNER_INVALID VOUCHER_NOT_MINIMUM_AMOUNT
        MINIMUM_AMOUNT_REQUIRED VOUCHER_COMBO_NOT_FOUND VOUCHER_COMBO_EXPIRED
        VOUCHER_COMBO_NOT_ENOUGH_QUANTITY MARKET_PLACE_VOUCHER_NOT_FOUND
        MARKET_PLACE_VOUCHER_ALREADY_REQUESTED MARKET_PLACE_VOUCHER_EXCEED_QUANTITY
        REDEMPTION_RULE_NOT_FOUND REDEMPTION_MERCHANT_INVALID MEMBER_NOT_FOUND MEMBER_NOT_MERCHANT
        MEMBER_PARENT_INVALID REDEMTION_PARENT_INVALID REDEMPTION_RULE_KEY_FOUND QR_REDEEMED
        RESOURCE_GONE VOUCHER_NOT_REDEMMED VOUCHER__NOT_MINIMUM_AMOUNT
        """,
    CodeClass.FIX: """
        VOUCHER_BATCH_KEY_INVALID VOUCHER_NOT_MERCHANT VOUCHER__NOT_MERCHANT EXPIRY_INVALID
        EXPIRY_MIN USER_PIN_CODE_INVALID PIN_INVALID STORE_NOT_FOUND STORE_ID_INVALID STORE_NOT_SET
        STORE_KEY_INVALID STORE_INVALID_FORMAT NOT_USER_STORE STORE_NOT_USER
        NOT_AUTHORIZE_USER_STORE QR_INVALID ORIGIN_INVALID UNIQUE_CODE_EMPTY UNIQUE_CODE_INVALID
        INVALID_PUBLIC_KEY NOT_SUBSCRIBE SUBSCRIPTION_NOT_FOUND MASTER_MERCHANT_NOT_SUBSCRIBE
        MASTER_MERCHANT_SUBSCRIPTION_NOT_ACTIVE MASTER_MERCHANT_SUBSCRIPTION_EXPIRED
        MERCHANT_ID_INVALID MERCHANT_KEY_INVALID MERCHANT_NOT_FOUND MERCHANT_NOT_SAME
        MERCHANT_NOT_SETUP USER_NOT_ACTIVE USR_NOT_ACTIVE PAGE_NOT_FOUND PageNotFound
        CLIENT_NOT_AUTHORIZE_STORE TOKEN_SUSPENDED NOT_PERMITTED NO_ACCESS
        INSUFFICIENT_PERMISSION_LEVEL USER_NO_PERMISSION CLIENT_NO_PERMISSION INVALID_SCOPE
        SCOPE_NOT_FOUND CLIENT_NOT_FOUND CLIENT_INVALID INVALID_CLIENT InvalidClient InActiveClient
        UnAuthorizedClient CLIENT_NOT_SET_PUBLIC_KEY CLIENT_PRODUCT_NOT_SETUP
        SUBSCRIPTION_NOT_ACTIVE SUBSCRIPTION_EXPIRED LOYALTY_NOT_SUBSCRIBED
        INVALID_REQUEST_SIGNATURE INVALID_SIGNATURE SIGNATURE_INVALID INVALID_TIMESTAMP
        GRANT_TYPE_INVALID UnSupportedGrantType AccessDenied ACCOUNT_SUSPENDED ACCOUNT_INACTIVE
        ACCOUNT_FROZEN MERCHANT_SUSPENDED MERCHANT_INACTIVE MERCHANT_NOT_ACTIVE USER_SUSPENDED
        API_INACTIVE INVALID_REQUEST InvalidRequest VALIDATION_ERROR INVALID_PARAMETER
        INVALID_PARAMETER_ID INVALID_ID INVALID_FORMAT INVALID_CHARSET INVALID_HTTP_METHOD
        METHOD_NOT_ALLOWED NO_METHOD API_ENDPOINT_NOT_FOUND SSL_REQUIRED SPAM
        """,
    CodeClass.AUTH: "TOKEN_EXPIRED TOKEN_INVALID UNAUTHORIZED NOT_AUTH InvalidGrant InvalidCode",
    CodeClass.RETRY: """
        TOO_MANY_REQUEST_PER_SECOND EXCEEDED_LIMIT OVERLOAD TemporaryUnAvailable
        DOES_NOT_ALLOW_MULTIPLE_BATCH_PROCESSING
        """,
    CodeClass.UNKNOWN: "INTERNAL_ERROR InternalError SYSTEM_ERROR",
}
EVERY = [(code, wanted) for wanted, codes in APPENDIX.items() for code in codes.split()]


@pytest.mark.parametrize(("code", "wanted"), EVERY)
def test_code_has_its_class(code, wanted):
    """Every code of the appendix says what to do, in any case, with or without underscores."""
    for spelling in (code, code.lower(), code.replace("_", ""), code.title()):
        assert ERROR_CODES[spelling].code_class is wanted
    assert issubclass(ERROR_CODES[code].error, APIError)
    assert CODE_PATTERN.fullmatch(code)


def test_every_code_of_the_lists_is_known():
    """Each of RM's 405 codes has a class, or what it is about: never both, and no other has."""
    assert len(LISTED) == len(set(LISTED)) == 405
    assert [code for code in LISTED if (code in ERROR_CODES) == (area_of(code) is not None)] == []
    others = [code for codes in OTHER_CODES.values() for code in codes.split()]
    assert len(others) == len(set(others))
    assert set(ERROR_CODES) | set(others) <= set(LISTED)


@pytest.mark.parametrize("status", [400, 500])
def test_code_of_another_product_says_so(status):
    """It is no code that nobody knows, and the status decides what it proves."""
    wire = b'{"error": {"code": "PAYMENT_TIMEOUT"}}'
    with pytest.raises(APIError, match="RM lists it for payments: no voucher call is") as caught:
        success(Response(status=status, body=wire))
    assert type(caught.value) is (APIError if status == 400 else ServerError)


@pytest.mark.parametrize("code", ["ORDER_ID_DUPLICATE", "UNIQUE_CODE_DUPLICATE"])
def test_code_of_another_product_may_be_that_of_a_repeated_nonce(code):
    """RM does not publish that one, so a listed one with such a word proves nothing either."""
    assert area_of(code) is not None
    with pytest.raises(DuplicateRequestError, match=r"RM lists it for .* Or else: An earlier copy"):
        success(Response(status=400, body=b'{"error": {"code": "%s"}}' % code.encode()))


@pytest.mark.parametrize(
    ("code", "sentence", "area"),
    [
        ("AUTH_CODE_USED", "Customer code has already been used.", "payments"),
        ("PASSWORD_REQUIRED", "Pending customer password", "payments"),
        ("APPLICATION_CONTEXT_ERR", "an activity that is not a BaseActivity", "terminals"),
        ("BUSINESS_CATEGORY_NOT_FOUND", "Business category not found", "accounts and merchants"),
        ("MAX_VALUE", "Account update failed: value is too long", "accounts and merchants"),
        ("OPEN_FAIL", "Fail to request open ID", "signing in and passwords"),
        ("NO_APP_ID", "Missing parameter", "no stated purpose"),
        ("INVALID_PRIVATE_KEY", "Invalid private key", "no stated purpose"),
        ("MONEY_PACKET_EXPIRED", "Money packet has expired", "campaigns and money packets"),
    ],
)
def test_area_is_that_of_the_sentence(code, sentence, area):
    """What a code is about is what RM's sentence beside it says; its name alone may mislead."""
    assert str(area_of(code)).endswith(area), sentence


def test_code_that_nobody_lists_says_so():
    """Neither of RM's lists has it."""
    assert area_of("NEW_CODE") is None
    with pytest.raises(APIError, match="RM's lists of error codes do not have this one"):
        success(Response(status=400, body=b'{"error": {"code": "NEW_CODE"}}'))


def test_table_has_no_code_of_its_own():
    """Nothing stands in the table that the appendix does not have."""
    assert {ERROR_CODES[code].code for code, _ in EVERY} == set(ERROR_CODES)
    assert len(ERROR_CODES) == len(set(ERROR_CODES))


@pytest.mark.parametrize("info", [ERROR_CODES[code] for code in ERROR_CODES], ids=lambda i: i.code)
def test_hint_is_a_sentence(info):
    """Every remedy is a sentence for a person."""
    assert info.hint[0].isupper()
    assert info.hint.endswith(".")
    assert info.code not in info.hint


@pytest.mark.parametrize("code", ["", "NEW_CODE", "VOUCHER", "SUCCESS"])
def test_unknown_code_is_not_in_the_table(code):
    """A code that nobody listed is told apart."""
    assert code not in ERROR_CODES


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("VOUCHER_NOT_FOUND", NotFoundError),
        ("MEMBER_NOT_FOUND", NotFoundError),
        ("VOUCHER_BATCH_NOT_ENOUGH_QUANTITY", OutOfStockError),
        ("VOUCHER_INSUFFICIENT", OutOfStockError),
        ("VOUCHER_SOLD_OUT", OutOfStockError),
        ("VOUCHER_BATCH_EXPIRED", ExpiredError),
        ("VOUCHER_NOT_ALLOW_VOID", VoucherStateError),
        ("TOKEN_EXPIRED", AuthenticationError),
        ("InvalidClient", AuthenticationError),
        ("INVALID_TIMESTAMP", SignatureError),
        ("INVALID_SIGNATURE", SignatureError),
        ("MERCHANT_SUSPENDED", PermissionDeniedError),
        ("INVALID_SCOPE", PermissionDeniedError),
        ("INVALID_PARAMETER", InvalidRequestError),
        ("TOO_MANY_REQUEST_PER_SECOND", RateLimitError),
        ("OVERLOAD", ServerError),
        ("SYSTEM_ERROR", ServerError),
    ],
)
def test_code_raises_its_error(code, error):
    """The exception is the one that a caller would catch."""
    assert ERROR_CODES[code].error is error
