"""The probe: it states its cost, guards real vouchers, makes the experiments, and reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Self

from yarl import URL

from rm_voucher.arguments import check_type
from rm_voucher.exceptions import ConfigurationError, VoucherError
from rm_voucher.probe.budget import Budget, BudgetSpentError, Cost, MeteredTransport
from rm_voucher.probe.catalogue import EXPERIMENTS
from rm_voucher.probe.experiment import Experiment
from rm_voucher.probe.options import Options, option_in_words
from rm_voucher.probe.report import ENDED_EARLY, Report, clean_text, without_secrets
from rm_voucher.probe.session import Session, StopProbeError, UnclearError
from rm_voucher.redaction import hide_locals
from rm_voucher.runtime import Runtime
from rm_voucher.settings import Credentials, Environment, Limits, is_harmless, is_in_memory
from rm_voucher.signing.rsa import RsaSigner
from rm_voucher.text import typeable
from rm_voucher.transport.base import Transport
from rm_voucher.transport.proxy import Proxy
from rm_voucher.wire.operations import build_issue

_FIRST = Cost(calls=4)  # the token
_SPARE = Cost(calls=60)  # repeats of what got no answer, and tokens that were refused
_MOST_OFF_S = 60.0


class Probe:
    """Finds out what RM's server does where its pages are silent.

    It uses up vouchers of one batch, as many as `cost` says at most, so give it a batch of the
    sandbox that may be used up. It makes each experiment of `EXPERIMENTS` that its options allow,
    one after another, with five requests a second at most. It ends early at the
    first issue whose outcome is unknown.

    Use it as an async context manager or call `aclose`.

    Args:
        credentials: the application's identity.
        batch_key: the batch whose vouchers may be used up.
        environment: the servers' URLs; the sandbox's by default.
        options: what else it may do and use.
        transport: an `AiohttpTransport` of its own by default; one that is passed in is not closed.
        runtime: the clocks, the sleep, the chance and the nonces; replace them in tests.
        on_progress: is told of each experiment before it is made.

    Raises `ConfigurationError`, also for a server that is not RM's sandbox without
    ``Options.production`` and ``Options.batch_label``.
    """

    @hide_locals
    def __init__(
        self,
        credentials: Credentials,
        batch_key: str,
        *,
        environment: Environment | str = Environment.SANDBOX,
        options: Options | None = None,
        transport: Transport | None = None,
        runtime: Runtime | None = None,
        on_progress: Callable[[Experiment], None] = lambda experiment: None,
    ) -> None:
        check_type("credentials", credentials, Credentials)
        environment = Environment.of(environment)
        build_issue(environment, batch_key)  # it refuses a key that can't be sent
        self._options = options = options or Options()
        self._environment = environment
        is_real = not is_harmless(environment)
        if is_real and not (options.production and options.batch_label):
            raise ConfigurationError(
                "This server is not RM's sandbox, and a probe uses up vouchers: allow it with "
                "production=True, and give the batch's label as batch_label."
            )
        self._is_real = is_real
        self._chosen = experiments_of(options)
        self._on_progress = on_progress
        runtime = runtime or Runtime()
        self._owned = transport is None
        if transport is None:
            # Imported here, so that a probe with another transport never loads aiohttp.
            from rm_voucher.transport.aiohttp import AiohttpTransport

            transport = AiohttpTransport(limits=Limits(), proxy=Proxy.from_env())
        self._budget = Budget(
            limit=self.cost,
            until=runtime.monotonic() + options.max_s,
            monotonic=runtime.monotonic,
        )
        self._transport = MeteredTransport(transport, self._budget)
        self._session = Session(
            credentials,
            batch_key,
            environment=environment,
            transport=self._transport,
            budget=self._budget,
            signer=RsaSigner.from_pem(credentials.private_key_pem()),
            options=options,
            runtime=runtime,
        )
        self._why: dict[str, BaseException] = {}
        self._stopped = "it did not begin"
        self._refuses_credentials = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the transport, unless it was passed in."""
        if self._owned:
            await self._transport.aclose()

    @property
    def experiments(self) -> tuple[Experiment, ...]:
        """The experiments that the options allow."""
        return self._chosen

    @property
    def cost(self) -> Cost:
        """The most that it uses."""
        return cost_of(self._chosen)

    @property
    def used(self) -> Cost:
        """What it has used so far. An issue whose outcome is unknown counts as a voucher."""
        return self._budget.used

    @hide_locals
    async def run(self) -> Report:
        """Make the experiments, and return the report.

        It raises nothing of the server's: what fails is in the report. Cancelling it stops it at
        once; `report` has what was found out until then, and an issue that was in flight counts as
        used. Run it once.
        """
        self._stopped = "it was interrupted"
        try:
            await self._begin()
            for experiment in self._chosen:
                self._on_progress(experiment)
                await self._make(experiment)
            self._stopped = ""
        except* (StopProbeError, UnclearError, VoucherError) as ends:
            end = _first_of(ends)
            self._stopped = _reason(end)
            self._refuses_credentials = isinstance(end, UnclearError) and end.refuses_credentials
        return self.report()

    async def _begin(self) -> None:
        """Buy a token, look at the clock, and at the batch. Nothing was used before."""
        session = self._session
        session.tokens.hold(await session.buy())
        off_s = session.clock.offset_s or 0.0
        if abs(off_s) > _MOST_OFF_S:
            side = "behind" if off_s > 0 else "ahead of"
            raise StopProbeError(
                f"this machine's clock is {abs(off_s):.0f} s {side} RM's: set it, and try again"
            )

    async def _make(self, experiment: Experiment) -> None:
        try:
            await experiment.observe(self._session)
        except* (StopProbeError, BudgetSpentError):
            raise
        except* (UnclearError, VoucherError) as reasons:
            self._why[experiment.name] = _first_of(reasons)
        except* (AssertionError, LookupError, TypeError, ValueError) as reasons:
            # An answer of a kind that nobody thought of must not cost the report.
            kind = type(_first_of(reasons)).__name__
            self._why[experiment.name] = UnclearError(f"an answer is not as documented ({kind})")
        if experiment.name == "batch":
            self._guard()

    def _guard(self) -> None:
        """Stop before anything is used, unless the batch is the one that was meant."""
        batch = self._session.batch
        if batch.key != self._session.batch_key:
            raise self._why.get("batch") or StopProbeError("the batch can't be read")
        given, label = typeable(self._options.batch_label), typeable(batch.label or "")
        if self._is_real and (given != label or not label):
            raise StopProbeError("the batch's label is another one than was given")
        if batch.is_static:
            raise StopProbeError(
                "the batch is static: give another one, and this one as "
                f"{option_in_words('static_batch')}"
            )

    def report(self) -> Report:
        """Return the report of what was found out so far."""
        secret = self._session.secret
        findings = []
        for experiment in EXPERIMENTS:
            why = _reason(self._why.get(experiment.name, ""))
            if experiment not in self._chosen:
                why = f"it was left out: give {option_in_words(experiment.needs)}"
            elif self._stopped and why in ("", self._stopped):
                why = ENDED_EARLY + self._stopped
            findings += experiment.findings(self._session.notes, why)
        return Report(
            findings=without_secrets(findings, secret),
            environment=_name_of(self._environment),
            stated=self.cost,
            used=self.used,
            stopped=clean_text(self._stopped, secret),
            refuses_credentials=self._refuses_credentials,
            headers=tuple(sorted(clean_text(one, secret) for one in self._session.header_names)),
        )


def experiments_of(options: Options) -> tuple[Experiment, ...]:
    """Return the experiments that the options allow."""
    return tuple(one for one in EXPERIMENTS if one.is_chosen(options))


def cost_of(experiments: Iterable[Experiment]) -> Cost:
    """Return the most that a probe with these experiments uses."""
    return sum((one.cost for one in experiments), _FIRST + _SPARE)


def _reason(exc: BaseException | str) -> str:
    """Return its words without the full stop: they go on in a sentence."""
    return str(exc).removesuffix(".")


def _first_of(exc: BaseException) -> BaseException:
    """Return the first exception of a group; requests that are made at once fail as one."""
    return _first_of(exc.exceptions[0]) if isinstance(exc, BaseExceptionGroup) else exc


def _name_of(environment: Environment) -> str:
    known = {Environment.SANDBOX.api_url: "sandbox", Environment.PRODUCTION.api_url: "production"}
    other = "memory" if is_in_memory(URL(environment.api_url).host or "") else "other"
    return known.get(environment.api_url, other)
