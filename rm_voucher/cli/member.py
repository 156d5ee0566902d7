"""``rm-voucher member``: the vouchers in the account of one loyalty member."""

from __future__ import annotations

from typing import Annotated

import typer

from rm_voucher.cli.common import examples
from rm_voucher.cli.listings import (
    VOUCHER_COLUMNS,
    Choice,
    ExpiringOption,
    OutputOption,
    StatusOption,
    Target,
    list_all,
)
from rm_voucher.cli.one import show_changed, show_one
from rm_voucher.cli.options import EnvironmentOption, ExcelOption, JsonOption

member_app: typer.Typer = typer.Typer(
    name="member",
    no_args_is_help=True,
    help="Look at and redeem the vouchers of a loyalty member, by telephone number.",
)

CountryArgument = Annotated[
    str, typer.Argument(metavar="COUNTRY_CODE", help="Digits alone, such as 60.")
]
PhoneArgument = Annotated[
    str, typer.Argument(metavar="PHONE", help="The rest of the number, digits alone.")
]
CodeArgument = Annotated[str, typer.Argument(metavar="CODE", help="The voucher's code.")]


@member_app.command("vouchers")
@examples("rm-voucher member vouchers 60 123456789")
def member_vouchers(
    country_code: CountryArgument,
    phone: PhoneArgument,
    status: StatusOption = None,
    expiring_in: ExpiringOption = None,
    output: OutputOption = None,
    excel: ExcelOption = False,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """List a member's vouchers, as CSV or a line of JSON each."""
    list_all(
        environment,
        lambda client: client.member(country_code, phone).vouchers(),
        VOUCHER_COLUMNS,
        Choice.of(status, expiring_in),
        Target(output, excel=excel, as_json=as_json),
    )


@member_app.command("get")
@examples("rm-voucher member get 60 123456789 CODE")
def member_get(
    country_code: CountryArgument,
    phone: PhoneArgument,
    code: CodeArgument,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look a voucher of a member's up."""
    show_one(
        environment,
        lambda client: client.member(country_code, phone).get(code),
        as_json=as_json,
    )


@member_app.command("redeem")
@examples("rm-voucher member redeem 60 123456789 CODE")
def member_redeem(
    country_code: CountryArgument,
    phone: PhoneArgument,
    code: CodeArgument,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Redeem a voucher of a member's, which may use it up."""
    show_changed(
        environment,
        lambda client: client.member(country_code, phone).redeem(code),
        "redeemed",
        as_json=as_json,
    )
