"""The answer to *Get Voucher Batch By Key* in pydantic v2, meaning what `rm_voucher.models` means.

Written as a pydantic user would for speed: JSON, names, amounts, enums and times stay in pydantic's
compiled core; Python is called once a time, to shift it to UTC. The enums are the library's, whose
``_missing_`` pydantic calls for a value that it does not know.

One corner is left out, in pydantic's favour: where both spellings of a name come and the first is
null, the library reads the second.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, AliasGenerator, BaseModel, ConfigDict, Field, Strict
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

from rm_voucher import ExpiryType, Origin, VoucherStatus, VoucherType

_GO_ZERO_TIME = datetime.min.replace(tzinfo=UTC)
# pydantic's own times are wider: seconds since 1970, a space for the T, no seconds, more digits.
_RFC3339 = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})$"
)


def _in_utc(instant: datetime) -> datetime | None:
    utc = instant.astimezone(UTC)
    return None if utc == _GO_ZERO_TIME else utc


Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Whole = Annotated[int, Field(strict=True, ge=0)]


class _Rfc3339:
    @staticmethod
    def __get_pydantic_core_schema__(_source: object, _handler: object) -> CoreSchema:
        text = core_schema.str_schema(strict=True, pattern=_RFC3339)
        instant = core_schema.datetime_schema(tz_constraint="aware")
        return core_schema.no_info_after_validator_function(
            _in_utc, core_schema.chain_schema([text, instant])
        )


Time = Annotated[datetime, _Rfc3339]


class _Wire(BaseModel):
    model_config = ConfigDict(
        alias_generator=AliasGenerator(validation_alias=to_camel), extra="allow", frozen=True
    )


class Expiry(_Wire):
    type: ExpiryType | None = None
    days: Whole | None = Field(None, validation_alias="day")
    expires_at: Time | None = Field(None, validation_alias=AliasChoices("expiredAt", "expiryAt"))


class Voucher(_Wire):
    code: Text | None = None
    status: VoucherStatus | None = None
    type: VoucherType | None = None
    amount_sen: Whole | None = Field(None, validation_alias="amount")
    discount_rate_bp: Whole | None = Field(None, validation_alias="discountRate")
    minimum_spend_sen: Whole | None = Field(None, validation_alias="minimumSpendAmount")
    expiry: Expiry | None = None
    label: Text | None = None
    key: Text | None = None
    batch_key: Text | None = Field(
        None, validation_alias=AliasChoices("voucherBatchKey", "voucherBathKey")
    )
    origin: Origin | None = None
    qr_url: Text | None = None
    image_url: Text | None = None
    is_shipping: Flag | None = None
    address: Any = None
    is_device_redeem: Flag | None = None
    member_profile: Any = None
    redemption_rule_key: Text | None = None
    redemption_rule: Any = None
    payload: Any = None
    assigned_at: Time | None = None
    redeemed_at: Time | None = None
    used_at: Time | None = None
    created_at: Time | None = None
    updated_at: Time | None = None


class Meta(BaseModel):
    cursor: Text | None = None
    count: Any = None


class Answer(BaseModel):
    code: Literal["SUCCESS"]
    items: tuple[Voucher, ...]
    meta: Meta | None = None
