"""What the emulator bears: issues over HTTP, a million vouchers, listings of any length.

Over HTTP it answers PER_S signed issues a second or more, with every rule kept; that needs
a machine with two cores and nothing else to do. Beside it, by turns in the same run, stands what
the machine allows: the same load on a bare `aiohttp.web.Server` whose answer is a constant (a),
and `RsaVerifier.verify` in a loop (b). One core that does both for each request does
1 / (1 / a + 1 / b) a second; the ratio to that is held to RATIO on any machine. The load
comes from a process of its own, which may not be what is slowest: it is idle for a part of the
time, and gets far more answers from the constant server.

A million vouchers fit into MIB of a fresh process, whether they come into being when they
are issued or before. A page of a listing takes the same time at any place of a batch of any size.
"""

import asyncio
import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator, Sequence

import attrs
import orjson
from aiohttp import web
from common import Row, at_least, at_most, compared, figure, in_fresh_process, main, say, serving
from http_load import Outcome, Signed, ask, load, signed_issues, token_request

from rm_voucher import Environment
from rm_voucher.emulator import Emulator, Guesses
from rm_voucher.emulator.authenticator import _MAX_NONCES
from rm_voucher.emulator.keys import new_private_key
from rm_voucher.emulator.routes import _cursor
from rm_voucher.emulator.server import serve
from rm_voucher.signing import RsaSigner, RsaVerifier, string_to_sign
from rm_voucher.wire.operations import build_token, build_vouchers, parse_token
from rm_voucher.wire.requests import with_signature

FORM = "{:,.0f} issues/s"
PER_S = at_least(4_000, FORM)
RATIO = at_least(0.3)
ROUNDS = 5
REQUESTS = 25_000  # a round
VERIFIED = 5_000  # a round
LOAD_SHARE = at_most(0.6, "{:.2f} of a core")
LOAD_REACH = at_least(1.5, "{:.1f} times")  # answers of the constant server for one of the emulator

MIB = at_most(700, "{:.0f} MiB")
VOUCHERS = 1_000_000
WAYS = {"with the issue": False, "up front": True}  # whether codes are there before

SPREAD = at_most(1.5)
SIZES = (1_000, 30_000, 1_000_000)
PLACES = ("start", "middle", "end")
PAGES = 60  # of each size and place
PAGE_SIZE = Guesses().page_size

# ru_maxrss is in KiB, on macOS in bytes.
MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
KEY = "BENCH"
CLIENT = "bench"
# As long as the answer to an issue.
CONSTANT = json.dumps(
    {
        "item": {"code": "A" * 10, "qrUrl": "https://emulator.invalid/qr/1/voucher/" + "A" * 10},
        "code": "SUCCESS",
    },
    separators=(",", ":"),
).encode()


# The servers, each run as a process of its own until its standard input ends.


async def serve_emulator(public_key: str, latency_s: float) -> None:
    emulator = Emulator(
        client_id=CLIENT,
        client_secret=CLIENT,
        public_key=public_key.encode(),
        batches={KEY: 2**40},
    )
    # As after a long time: the memory of nonces is full, and each one pushes out another.
    for number in range(2 * _MAX_NONCES):
        emulator.authenticator._check_nonce(f"old-{number}")
    async with serve(emulator, latency_s=latency_s) as server:
        await until_input_ends(int(server.url.rpartition(":")[2]))
    print(len(set(emulator.state.issued(KEY))))


async def serve_constant() -> None:
    async def handle(http: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=CONSTANT, content_type="application/json")

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await until_input_ends(runner.addresses[0][1])
    await runner.cleanup()


async def until_input_ends(port: int) -> None:
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


# Issues over HTTP.


@attrs.frozen
class Round:
    emulator: Outcome
    constant: Outcome
    verified_per_s: float

    @property
    def limit_per_s(self) -> float:
        return 1 / (1 / self.constant.per_s + 1 / self.verified_per_s)

    @property
    def ratio(self) -> float:
        return self.emulator.per_s / self.limit_per_s


def on_emulator(public_key: str, signed: Sequence[Signed]) -> Outcome:
    with serving("emulator.py", "emulator", public_key) as (port, server):
        _, answer = ask(port, token_request(CLIENT, CLIENT))
        token = json.loads(answer)["accessToken"]
        requests = [one.with_token(token) for one in signed]
        outcome = load(port, requests)
        # The rules are kept: of the signature, the nonce and the token.
        again = requests[0]
        swapped = again.replace(signed[0].signature.encode(), signed[1].signature.encode())
        statuses = [ask(port, one)[0] for one in (swapped, again, signed[0].with_token("none"))]
        issued = int(server.end())
    if statuses != [401, 400, 401]:
        sys.exit(f"a wrong signature, a repeat and a wrong token got {statuses}")
    if issued != len(signed):
        sys.exit(f"{issued} distinct codes for {len(signed)} issues")
    return outcome


def on_constant(signed: Sequence[Signed]) -> Outcome:
    with serving("emulator.py", "constant") as (port, _):
        return load(port, [one.with_token("A" * 43) for one in signed])


def verified_per_s(public_key: str, signed: Sequence[Signed]) -> float:
    verifier = RsaVerifier.from_pem(public_key.encode())
    begin = time.perf_counter()
    if not all(verifier.verify(one.text, one.signature) for one in signed):
        sys.exit("a signature is not of its text")
    return len(signed) / (time.perf_counter() - begin)


def measure_issues() -> Iterator[Row]:
    pem = new_private_key()
    public_key = RsaSigner.from_pem(pem).public_key_pem().decode()
    say(f"signs {REQUESTS:,} issues")
    signed = signed_issues(pem, KEY, REQUESTS)
    rounds = []
    for number in range(ROUNDS):
        one = Round(
            on_emulator(public_key, signed),
            on_constant(signed),
            verified_per_s(public_key, signed[:VERIFIED]),
        )
        rounds.append(one)
        say(
            f"round {number + 1}: {one.emulator.per_s:,.0f} issues/s, "
            f"constant {one.constant.per_s:,.0f}, verify {one.verified_per_s:,.0f}"
        )
    per_s = [one.emulator.per_s for one in rounds]
    share = statistics.median(one.emulator.cpu_share for one in rounds)
    reach = statistics.median(one.constant.per_s / one.emulator.per_s for one in rounds)
    what = "Emulator over HTTP, every rule kept"
    yield figure(what, statistics.median(per_s), FORM, PER_S)
    limit = ("one core that answers and verifies", [one.limit_per_s for one in rounds])
    yield compared(what, per_s, limit, FORM, RATIO)
    yield figure("Emulator: the load's share of a core", share, "{:.2f}", LOAD_SHARE)
    yield figure("Emulator: what else the load could do", reach, "{:.1f} times", LOAD_REACH)


# A million vouchers, and listings.


def issue_all(emulator: Emulator, key: str, quantity: int) -> None:
    emulator.add_batch(key, key=key, quantity=quantity)
    state = emulator.state
    for _ in range(quantity):
        state.issue(key)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT_BYTES / 2**20


def mib_of(way: str) -> float:
    """Return the most memory this process took for VOUCHERS that were all issued."""
    issue_all(Emulator(guesses=Guesses(codes_up_front=WAYS[way])), KEY, VOUCHERS)
    return peak_mib()


def listing_ms() -> list[list[float]]:
    """Return the median time of a page, for each size one for each place."""
    emulator = Emulator()
    assert emulator.credentials is not None
    for size in SIZES:
        issue_all(emulator, str(size), size)
    starts = [(size, start) for size in SIZES for start in (0, size // 2, size - PAGE_SIZE)]
    signer = RsaSigner.from_pem(emulator.credentials.private_key_pem())
    environment = Environment.at("https://emulator.invalid")
    token = parse_token(emulator.handle(build_token(environment, emulator.credentials)))
    taken_ms: dict[tuple[int, int], list[float]] = {place: [] for place in starts}
    for number in range(PAGES):
        for size, start in starts:  # by turns, so that a busy machine troubles all alike
            unsigned = build_vouchers(
                environment, str(size), cursor=_cursor(start) if start else None
            )
            nonce, now = f"{number} {size} {start}", str(int(time.time()))
            text = string_to_sign(
                method=unsigned.method, url=str(unsigned.url), nonce=nonce, timestamp=now
            )
            request = with_signature(
                unsigned,
                token=token.access_token,
                nonce=nonce,
                timestamp=now,
                signature=signer.sign(text.encode()),
                timeout=unsigned.timeout,
            )
            begin = time.perf_counter()
            answer = emulator.handle(request)
            taken_ms[size, start].append((time.perf_counter() - begin) * 1e3)
            codes = [item["code"] for item in orjson.loads(answer.body)["items"]]
            listed = emulator.state.stock.batch(str(size)).listed[start : start + PAGE_SIZE]
            if codes != [record.code for record in listed]:
                sys.exit(f"not the page of {size} from {start} on")
    medians = [statistics.median(taken_ms[place]) for place in starts]
    return [medians[index : index + len(PLACES)] for index in range(0, len(medians), len(PLACES))]


def measure_memory() -> Iterator[Row]:
    for way in WAYS:
        mib = in_fresh_process("emulator.py", "memory", way)
        what = f"Emulator's memory, {VOUCHERS:,} vouchers, codes {way}"
        yield figure(what, mib, "{:.0f} MiB", MIB)


def measure_listings() -> Iterator[Row]:
    table = in_fresh_process("emulator.py", "listings")
    for size, row in zip(SIZES, table, strict=True):
        places = ", ".join(f"{name} {ms:.2f} ms" for name, ms in zip(PLACES, row, strict=True))
        say(f"a page of a listing of {size:,}: {places}")
    every = [ms for row in table for ms in row]
    what = "Emulator's listing, the slowest page to the fastest"
    ratio = max(every) / min(every)
    yield Row(
        what,
        f"{max(every):.2f} ms",
        f"{min(every):.2f} ms",
        f"{ratio:.2f}",
        SPREAD.text,
        SPREAD.is_met_by(ratio),
    )


def measure() -> Iterator[Row]:
    # Memory first: a process begins with the peak of the one that started it.
    yield from measure_memory()
    yield from measure_listings()
    yield from measure_issues()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["emulator", public_key]:
            asyncio.run(serve_emulator(public_key, latency_s=0.0))
        case ["emulator", public_key, latency_s]:
            asyncio.run(serve_emulator(public_key, float(latency_s)))
        case ["constant"]:
            asyncio.run(serve_constant())
        case ["memory", way]:
            print(json.dumps(mib_of(way)))
        case ["listings"]:
            print(json.dumps(listing_ms()))
        case _:
            main(measure)
