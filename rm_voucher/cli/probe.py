"""rm-voucher probe: says what it will cost, asks, runs the experiments, and writes the report."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated

import attrs
import typer

from rm_voucher import ConfigurationError, Credentials, Environment, Runtime
from rm_voucher.cli.connect import credentials_and_environment, is_memory
from rm_voucher.cli.issue import INTERRUPTED, run_until_interrupted
from rm_voucher.cli.options import EnvironmentOption
from rm_voucher.cli.output import say, tell
from rm_voucher.emulator import Emulator
from rm_voucher.files import replace_private
from rm_voucher.probe import Options, Probe, Report, Verdict
from rm_voucher.probe.experiment import Experiment
from rm_voucher.probe.probe import is_harmless

_ENDED_EARLY = 1
_QUANTITY = 50


def probe(
    batch: Annotated[str, typer.Argument(help="The key of a batch that may be used up.")],
    output: Annotated[
        Path | None, typer.Option(help="Write the report to this file, as JSON.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the report to this file, as Markdown.")
    ] = None,
    measure_idle: Annotated[
        bool,
        typer.Option(
            "--measure-idle",
            help="Also wait, for five minutes at most, until the server closes an idle connection.",
        ),
    ] = False,
    measure_rate: Annotated[
        bool,
        typer.Option(
            "--measure-rate",
            help="Also send requests at a rising rate, up to 100 a second, until the first "
            "throttle.",
        ),
    ] = False,
    static_batch: Annotated[
        str, typer.Option(help="The key of a static batch; one voucher of it is issued.")
    ] = "",
    sold_out_batch: Annotated[str, typer.Option(help="The key of a batch with nothing left.")] = "",
    expired_batch: Annotated[str, typer.Option(help="The key of a batch that has ended.")] = "",
    uploaded_batch: Annotated[
        str,
        typer.Option(help="The key of a batch with uploaded codes; one voucher of it is redeemed."),
    ] = "",
    store_id: Annotated[str, typer.Option(help="A store at which vouchers may be voided.")] = "",
    pin: Annotated[
        bool,
        typer.Option("--pin", help="Ask for the PIN of a user of the portal, to reinstate with."),
    ] = False,
    member: Annotated[
        str,
        typer.Option(
            help="Country code and phone number of a loyalty member, such as 60-123456789; one of "
            "the member's vouchers of the batch is used."
        ),
    ] = "",
    production: Annotated[
        bool,
        typer.Option(
            "--production",
            help="Allow a server that is not the sandbox. The batch's label must be typed, too.",
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Don't ask before the sandbox is used.")
    ] = False,
    environment: EnvironmentOption = None,
) -> None:
    """Find out what RM's server really does, with a batch of the sandbox that may be used up."""
    options = Options(
        production=production,
        static_batch=static_batch,
        sold_out_batch=sold_out_batch,
        expired_batch=expired_batch,
        uploaded_batch=uploaded_batch,
        store_id=store_id,
        member=_member(member),
        measures_rate=measure_rate,
        measures_idle=measure_idle,
    )
    if pin:
        options = attrs.evolve(options, pin=_ask("The PIN", hidden=True))
    made = (
        _in_memory(batch, options)
        if is_memory(environment)
        else _over_http(batch, options, environment)
    )
    _state(made)
    if not (yes or production or is_memory(environment)) and _ask("Type yes to go on") != "yes":
        say("Nothing was sent.")
        raise typer.Exit(_ENDED_EARLY)
    _write(made.report(), output, markdown)  # before anything is used: they can be written
    report, code = _run(made)
    _write(report, output, markdown)
    tell_report(report)
    raise typer.Exit(code)


def _run(made: Probe) -> tuple[Report, int]:
    """Run it to its end, or until it is interrupted, and return the report and the exit code."""

    async def run() -> None:
        async with made:
            await made.run()

    try:
        run_until_interrupted(run(), say_once="Interrupted: the report has what was found so far.")
    except (KeyboardInterrupt, asyncio.CancelledError):
        return made.report(), INTERRUPTED
    report = made.report()
    return report, _ENDED_EARLY if report.stopped else 0


def _in_memory(batch: str, options: Options) -> Probe:
    """Return a probe of an embedded emulator, where nothing takes time."""
    say("The environment is 'memory', an embedded emulator: this says nothing about RM.")
    clock = _Ahead()
    emulator = Emulator(batches={batch: _QUANTITY}, clock=clock.now)
    assert emulator.credentials is not None  # noqa: S101 - it made them
    return Probe(
        emulator.credentials,
        batch,
        environment=emulator.environment,
        options=options,
        transport=emulator.transport(),
        runtime=Runtime(clock=clock.now, monotonic=clock.now, sleep=clock.sleep),
        on_progress=_on_progress,
    )


def _over_http(batch: str, options: Options, named: str | None) -> Probe:
    credentials, environment = credentials_and_environment(named)
    if options.production and not is_harmless(environment):
        say("This server has real vouchers, and the probe uses some up.")
        options = attrs.evolve(
            options, batch_label=_ask("Type the batch's label, as in the portal")
        )
    return _probe(credentials, batch, environment, options)


def _probe(
    credentials: Credentials, batch: str, environment: Environment, options: Options
) -> Probe:
    try:
        return Probe(
            credentials, batch, environment=environment, options=options, on_progress=_on_progress
        )
    except ConfigurationError as exc:
        if is_harmless(environment) or options.production:
            raise
        raise ConfigurationError(
            "This server is not RM's sandbox, and a probe uses up vouchers: --production allows "
            "it, and asks for the batch's label."
        ) from exc


class _Ahead:
    """A clock that waiting sets ahead."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def now(self) -> float:
        """Return the time."""
        return time.time() + self._ahead_s

    async def sleep(self, seconds: float) -> None:
        """Set the clock ahead, and let other tasks have a turn."""
        self._ahead_s += seconds
        await asyncio.sleep(0)


def _member(text: str) -> tuple[str, str] | None:
    if not text:
        return None
    country_code, dash, phone_number = text.partition("-")
    if not dash or not (country_code.isdecimal() and phone_number.isdecimal()):
        raise ConfigurationError(
            "--member is the country code, a dash and the phone number, such as 60-123456789."
        )
    return country_code, phone_number


def _ask(question: str, *, hidden: bool = False) -> str:
    """Return what a person types. A script can't answer by accident."""
    if not sys.stdin.isatty():
        raise ConfigurationError(
            f"{question}: only a person at a terminal can say that. In a script, --yes goes on "
            "with the sandbox."
        )
    answer: str = typer.prompt(question, hide_input=hidden, err=True)
    return answer.strip()


def _state(made: Probe) -> None:
    """Say what the probe does, and what it costs, before it does."""
    say(f"{len(made.experiments)} experiments:")
    for one in made.experiments:
        cost = f"{one.cost.calls} calls" if one.cost.calls else "no call"
        cost += f", {one.cost.vouchers} voucher" if one.cost.vouchers else ""
        say(f"  {one.name} ({cost} at most): {one.asks}{one.undoes and ' '}{one.undoes}")
    say(f"At most {made.cost.calls} calls and {made.cost.vouchers} vouchers, repeats included.")


def _on_progress(experiment: Experiment) -> None:
    say(f"{experiment.name} …")


def tell_report(report: Report) -> None:
    """Write the report for a person."""
    if report.stopped:
        say(f"The probe ended early: {report.stopped}.")
    for one in report.findings:
        is_open = one.verdict is Verdict.NOT_DECIDED
        tell(f"{one.verdict}: {one.subject}{'' if is_open else f' = {one.value!r}'}")
        for more in filter(None, (one.why, one.setting)):
            tell(f"    {more}")
    for line in report.guesses_source.splitlines():
        tell(line)
    tell(f"Used: {report.used.calls} calls, {report.used.vouchers} vouchers.")


def _write(report: Report, output: Path | None, markdown: Path | None) -> None:
    for path, content in ((output, report.to_json()), (markdown, report.to_markdown().encode())):
        try:
            if path is not None:
                replace_private(path, content)
        except OSError as exc:
            raise ConfigurationError(f"{path} can't be written: {exc.strerror}.") from exc
