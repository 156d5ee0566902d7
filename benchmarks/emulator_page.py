"""What an open page costs the emulator: its processor time for an issue, with a page and without.

The page is its stream of events, and what the browser fetches once a second while much arrives:
the summary and the newest requests. With it and without take turns on one server, and the
emulator keeps RATIO of its throughput. That is by processor time, into which the work of other
programs does not count.
"""

import asyncio
import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from common import Process, Row, at_least, compared, main, say, serving
from emulator import CLIENT, KEY
from http_load import ask, load, signed_issues, token_request

from rm_voucher.emulator import Emulator
from rm_voucher.emulator.control.access import PREFIX
from rm_voucher.emulator.keys import new_private_key
from rm_voucher.emulator.server import serve
from rm_voucher.signing import RsaSigner

FORM = "{:,.0f} issues per CPU second"
RATIO = at_least(0.9)
ROUNDS = 5
REQUESTS = 5_000  # a turn: a few seconds, so that the page fetches a few times
REFRESH_S = 1.0  # as page.js does


async def serve_emulator(public_key: str) -> None:
    """Serve until standard input ends; say the processor time so far for each line of it."""
    emulator = Emulator(
        client_id=CLIENT,
        client_secret=CLIENT,
        public_key=public_key.encode(),
        batches={KEY: 2**40},
    )
    async with serve(emulator) as server:
        print(int(server.url.rpartition(":")[2]), flush=True)
        read_line = sys.stdin.readline
        while await asyncio.get_running_loop().run_in_executor(None, read_line):
            print(json.dumps(time.process_time()), flush=True)


@contextmanager
def open_page(port: int) -> Iterator[None]:
    """Do in the block what a page in a browser does. Exits if it was not told of anything."""
    stream = http.client.HTTPConnection("127.0.0.1", port)
    stream.request("GET", f"{PREFIX}/events")
    events = stream.getresponse()
    closed = threading.Event()
    fetched: list[int] = []

    def listen() -> None:
        while not closed.is_set():
            if events.readline().startswith(b"data: "):
                for path in ("summary", "exchanges"):
                    status, body = ask(port, get(port, f"{PREFIX}/{path}"))
                    fetched.append(len(body) if status == http.client.OK else 0)
                closed.wait(REFRESH_S)

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        yield
    finally:
        closed.set()
        ask(port, get(port, "/v3/none"))  # a request, so that there is an event
        listener.join()
        stream.close()
    if not fetched or not all(fetched):
        sys.exit(f"the page fetched {fetched}")


def get(port: int, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()


def per_cpu_s(port: int, server: Process, requests: list[bytes]) -> float:
    begin_s = server.ask("")
    load(port, requests)
    return len(requests) / (server.ask("") - begin_s)


def measure() -> Iterator[Row]:
    pem = new_private_key()
    public_key = RsaSigner.from_pem(pem).public_key_pem().decode()
    say(f"signs {2 * ROUNDS * REQUESTS:,} issues")
    signed = signed_issues(pem, KEY, 2 * ROUNDS * REQUESTS)
    found: dict[bool, list[float]] = {True: [], False: []}
    with serving("emulator_page.py", "emulator", public_key) as (port, server):
        token = json.loads(ask(port, token_request(CLIENT, CLIENT))[1])["accessToken"]
        left = iter(signed)
        for number in range(ROUNDS):
            for has_page in (True, False) if number % 2 else (False, True):
                requests = [next(left).with_token(token) for _ in range(REQUESTS)]
                if has_page:
                    with open_page(port):
                        found[True].append(per_cpu_s(port, server, requests))
                else:
                    found[False].append(per_cpu_s(port, server, requests))
            say(f"round {number + 1}: {found[True][-1]:,.0f} with a page, {found[False][-1]:,.0f}")
    yield compared("Emulator with a page open", found[True], ("none", found[False]), FORM, RATIO)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["emulator", public_key]:
            asyncio.run(serve_emulator(public_key))
        case _:
            main(measure)
