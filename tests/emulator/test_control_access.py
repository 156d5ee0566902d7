"""Whom the control API answers: this machine, by its own name, and no page of another site."""

import aiohttp
import pytest
from aiohttp import web
from support.files import KEY_FILE

from rm_voucher import ConfigurationError, Credentials, Environment
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.control.access import allowed_names, refuses
from rm_voucher.emulator.server import serve

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())
LOOPBACK = {"peer": "127.0.0.1", "host": "127.0.0.1:8000", "origin": None}
OWN_NAMES = ["localhost", "localhost:8000", "LOCALHOST", "127.0.0.1", "127.9.9.9:1", "[::1]:8000"]
OWN_NAMES += ["shop.localhost:8000", "[::1]"]
FOREIGN_HOSTS = [
    "evil.example",
    "evil.example:8000",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
]
FOREIGN_HOSTS += [
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "127.1",
    "0",
    "0.0.0.0",
    "[::]",
    "10.0.0.1:80",
]
FOREIGN_HOSTS += ["[::ffff:10.0.0.1]", "evillocalhost", "localhost.", "169.254.169.254"]
NO_HOSTS = [
    "",
    "evil.example@127.0.0.1",
    "127.0.0.1@evil.example",
    "127.0.0.1/evil",
    "127.0.0.1#evil",
]
NO_HOSTS += [
    "127.0.0.1?.evil.example",
    "127.0.0.1:",
    "127.0.0.1:x",
    "127.0.0.1:123456",
    "127.0.0.1 evil",
]
NO_HOSTS += [
    "::1",
    "[::1",
    "[127.0.0.1]x",
    "127.0.0.1,evil.example",
    "http://127.0.0.1",
    "127.0.0.1\\evil",
]
ONLY_HERE = "the control API answers this machine only, or by a name that --allow-host gives"
FOREIGN_ORIGINS = ["https://evil.example", "null", "", "http://localhost:1", "http://evil.example"]
FOREIGN_ORIGINS += ["https://127.0.0.1:8000", "http://127.0.0.1", "http://127.0.0.1:80000"]


@pytest.fixture
async def server():
    """A served emulator, and its port."""
    async with serve(Emulator(credentials=ME, batches={"K": 1})) as server:
        yield server


async def get(server, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/_emulator/batches", headers=headers) as answer,
    ):
        body = await answer.json() if answer.status != 400 else await answer.text()
        return answer.status, body


@pytest.mark.parametrize("host", OWN_NAMES)
def test_own_names(host):
    """Each name and address of loopback is one of this machine, with a port and without."""
    assert refuses(**LOOPBACK | {"host": host}) is None
    assert refuses(peer="::1", host=host, origin=f"http://{host}") is None


@pytest.mark.parametrize("host", FOREIGN_HOSTS + NO_HOSTS)
def test_foreign_hosts(host):
    """Another name, another way to write an address, and what is no host are refused."""
    assert "Host" in str(refuses(**LOOPBACK | {"host": host}))


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_foreign_origins(origin):
    """A page of another origin is refused, also one of another port or scheme of this machine."""
    assert "page" in str(refuses(**LOOPBACK | {"origin": origin}))


@pytest.mark.parametrize(
    "peer", [None, "", "10.0.0.1", "192.168.1.2", "::", "fe80::1%eth0", "2001:db8::1"]
)
def test_foreign_peers(peer):
    """A peer that is not on loopback is refused, whatever it says of itself."""
    assert "this machine only" in str(refuses(**LOOPBACK | {"peer": peer}))


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
async def test_foreign_host_over_http(server, host):
    """A name that was made to lead here gets a 403 that says why, and nothing of the emulator's."""
    status, body = await get(server, Host=host)
    assert (status, body) == (403, {"error": "the Host header is no name of this machine"})


@pytest.mark.parametrize("host", NO_HOSTS)
async def test_no_host_over_http(server, host):
    """What is no host is no request."""
    status, body = await get(server, Host=host)
    assert status == 400
    assert "Host" in body


@pytest.mark.parametrize("origin", [*FOREIGN_ORIGINS, "http://{host}."])
async def test_foreign_origin_over_http(server, origin):
    """A page of another site gets a 403, also a page of another port of this machine."""
    status, body = await get(server, Origin=origin.format(host=server.url.removeprefix("http://")))
    assert (status, body) == (403, {"error": "the request comes from another site's page"})


async def test_own_origin_over_http(server):
    """A page that the emulator's own address served may use it."""
    assert (await get(server, Origin=server.url))[0] == 200
    port = server.url.rpartition(":")[2]
    host = f"localhost:{port}"
    assert (await get(server, Host=host, Origin=f"http://{host}"))[0] == 200
    assert (await get(server, Host=host, Origin=server.url))[0] == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", ""])
async def test_foreign_fetch_over_http(server, site):
    """What a browser says another site's page asks for is refused, without an Origin, too."""
    refused = {"error": "the request comes from another site's page"}
    assert await get(server, Sec_Fetch_Site=site) == (403, refused)
    assert await get(server, Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors") == (403, refused)


@pytest.mark.parametrize("site", ["same-origin", "none"])
async def test_own_fetch_over_http(server, site):
    """The emulator's own page may ask, and a person who types the address."""
    assert (await get(server, Sec_Fetch_Site=site, Sec_Fetch_Mode="cors"))[0] == 200


async def test_link_of_another_site(server):
    """A link may lead here; a form may not do anything, and neither may a foreign name."""
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    async with aiohttp.ClientSession(headers=link) as session:
        async with session.get(f"{server.url}/_emulator/") as answer:
            assert answer.status == 200
        async with session.post(f"{server.url}/_emulator/reset", data=b"{}") as answer:
            assert answer.status == 403
        foreign = {"Host": "evil.example"}
        async with session.get(f"{server.url}/_emulator/", headers=foreign) as answer:
            assert answer.status == 403


async def test_two_origins(server):
    """Of two Origin headers none is believed."""
    headers = [("Origin", server.url), ("Origin", "https://evil.example")]
    for both in (headers, headers[::-1]):
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{server.url}/_emulator/batches", headers=both) as answer,
        ):
            assert answer.status == 403


async def test_proxies_headers_count_for_nothing(server):
    """What a proxy would say neither opens the control API nor closes it."""
    said = {"X_Forwarded_Host": "evil.example", "X_Forwarded_For": "10.0.0.1"}
    assert (await get(server, **said, Forwarded="for=10.0.0.1;host=evil.example"))[0] == 200
    said = {"X_Forwarded_Host": "127.0.0.1", "X_Forwarded_For": "127.0.0.1", "X_Real_IP": "::1"}
    assert (await get(server, **said, Forwarded="host=localhost", Host="evil.example"))[0] == 403


async def test_foreign_peer_over_http(server, monkeypatch):
    """The peer is the one of the connection; without one nobody is answered."""
    for known in ("10.0.0.1", None):
        monkeypatch.setattr(web.BaseRequest, "remote", known)
        status, body = await get(server, X_Forwarded_For="127.0.0.1")
        assert (status, body) == (403, {"error": ONLY_HERE})


async def test_refused_request_does_nothing():
    """What is refused is not done."""
    emulator = Emulator(credentials=ME, batches={"K": 1})
    emulator.state.issue("K")
    async with serve(emulator) as server, aiohttp.ClientSession() as session:
        for headers in ({"Host": "evil.example"}, {"Origin": "null"}, {"Host": "a@127.0.0.1"}):
            url = f"{server.url}/_emulator/reset"
            async with session.post(url, headers=headers, data=b"{}") as answer:
                assert answer.status in (400, 403)
    assert len(emulator.state.issued("K")) == 1


ALLOWED = allowed_names(["Emulator", "shop.example:9000"])


@pytest.mark.parametrize("peer", ["127.0.0.1", "172.17.0.1", "2001:db8::1"])
@pytest.mark.parametrize("host", ["emulator", "EMULATOR:8000", "shop.example:9000"])
def test_allowed_name(peer, host):
    """Who knows the name may be anywhere; a name that was given with a port has that one only."""
    assert refuses(peer=peer, host=host, origin=None, allowed_hosts=ALLOWED) is None
    own = f"http://{host}"
    assert refuses(peer=peer, host=host, origin=own, allowed_hosts=ALLOWED) is None
    evil = "http://evil.example"
    refused = refuses(peer=peer, host=host, origin=evil, allowed_hosts=ALLOWED)
    assert refused == "the request comes from another site's page"


@pytest.mark.parametrize(
    "host",
    [
        "shop.example",
        "shop.example:90",
        "x.emulator",
        "emulator.",
        "emulator.evil.example",
        "*",
        *FOREIGN_HOSTS,
        *NO_HOSTS,
    ],
)
def test_name_that_is_not_allowed(host):
    """An allowed name opens no other one, from here or from elsewhere."""
    for peer in ("127.0.0.1", "172.17.0.1"):
        assert refuses(peer=peer, host=host, origin=None, allowed_hosts=ALLOWED) is not None


@pytest.mark.parametrize("host", OWN_NAMES)
def test_allowed_name_leaves_names_of_this_machine_to_it(host):
    """Another machine may send ``Host: localhost``: that is no name it was given."""
    assert refuses(**LOOPBACK | {"host": host}, allowed_hosts=ALLOWED) is None
    given = {"peer": "172.17.0.1", "host": host, "origin": None}
    assert refuses(**given, allowed_hosts=ALLOWED) == ONLY_HERE
    assert refuses(**given, allowed_hosts=allowed_names([host])) is None


@pytest.mark.parametrize("hosts", [["*"], [""], ["a b"], ["emulator:99999"], [5], "emulator"])
def test_name_that_can_not_be_allowed(hosts):
    with pytest.raises(ConfigurationError, match="host"):
        allowed_names(hosts)


async def test_allowed_name_over_http(monkeypatch):
    """The server takes it, and is called by it in the variables of a client and in QR codes."""
    emulator = Emulator(credentials=ME, batches={"K": 1})
    async with serve(emulator, host="0.0.0.0", allowed_hosts=["emulator", "b"]) as server:
        port = server.url.rpartition(":")[2]
        assert server.url == f"http://127.0.0.1:{port}"
        assert server.variables["RM_ENVIRONMENT"] == f"http://emulator:{port}"
        assert server.variables["RM_ALLOW_PLAIN_HTTP"] == f"emulator:{port}"
        assert emulator.state.issue("K")[1].startswith(f"http://emulator:{port}/qr/1/voucher/")
        monkeypatch.setattr(web.BaseRequest, "remote", "172.17.0.2")
        assert (await get(server, Host=f"emulator:{port}"))[0] == 200
        assert (await get(server, Host="b"))[0] == 200
        assert (await get(server, Host=f"localhost:{port}"))[0] == 403
        assert (await get(server, Host="evil.example"))[0] == 403


async def test_public_url():
    """Customers may find it elsewhere than clients do."""
    emulator = Emulator(credentials=ME, batches={"K": 1})
    public = "https://Vouchers.example/"
    async with serve(emulator, allowed_hosts=["emulator:80"], public_url=public) as server:
        assert server.variables["RM_ENVIRONMENT"] == "http://emulator"
        assert server.variables["RM_ALLOW_PLAIN_HTTP"] == "emulator"
        assert Environment.from_env(server.variables).api_url == "http://emulator"
        (_, url) = emulator.state.issue("K")
        assert url.startswith("https://vouchers.example/qr/1/voucher/")
    assert emulator.variables["RM_ENVIRONMENT"] == "https://emulator.invalid"
    with pytest.raises(ConfigurationError, match="The public URL must start with"):
        await serve(emulator, public_url="nowhere").__aenter__()
