"""Rule: a file with codes or secrets is opened by what it is, not by what its name leads to.

It is made anew under a name that nobody laid there, or is a plain file of one's own, and then it is
its owner's alone. No link is written through, and no pipe is waited for.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from support.answers import ISSUED, ok
from support.files import KEY_FILE, PUBLIC_KEY_FILE
from support.scripted_server import ScriptedServer

from rm_voucher import ConfigurationError, Credentials, FileTokenStore
from rm_voucher.files import keep_older, open_plain, open_private, replace_private
from rm_voucher.webhooks import CallbackVerifier

TOKEN = ok({"accessToken": "token", "expiresIn": 10_000, "refreshToken": "refresh"})


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Another file, to which a link leads."""
    path = tmp_path / "victim"
    path.write_text("precious")
    return path


def test_partial_is_a_link(rm, served, tmp_path: Path, victim: Path) -> None:
    """A link in the place of a run's partial file is refused, and its target untouched."""
    served.emulator.add_batch("Breakfast", key="B", quantity=3)
    for name, options in {
        "out.csv.partial": (),
        "out.csv.ledger.partial": ("--ledger", f"sqlite:///{tmp_path}/a.db"),
    }.items():
        (tmp_path / name).symlink_to(victim)
        ended = rm("issue", "B", "--output", tmp_path / "out.csv", *options)
        assert (ended.code, ended.out) == (2, "")
        assert (victim.read_text(), served.issued()) == ("precious", [])


def test_export_through_a_link(rm, served, tmp_path: Path, victim: Path) -> None:
    """So it is with the file of an export."""
    url = f"sqlite:///{tmp_path}/a.db"
    served.emulator.add_batch("Breakfast", key="B", quantity=3)
    assert rm("issue", "B", "--ledger", url).code == 0
    (tmp_path / "out.csv.ledger.partial").symlink_to(victim)
    ended = rm("ledger", "export", url, "--output", tmp_path / "out.csv")
    assert (ended.code, victim.read_text()) == (2, "precious")
    assert ended.err.endswith("out.csv can't be written: it is a link.\n")


@pytest.mark.parametrize("target", ["victim", "missing"])
def test_output_is_a_link(rm, embedded, tmp_path: Path, victim: Path, target: str) -> None:
    """A link that has the output's name is replaced, and not written through."""
    out = tmp_path / "out.csv"
    out.symlink_to(tmp_path / target)
    assert rm("issue", "B", "--output", out).code == 0
    assert (victim.read_text(), mode(out), out.is_symlink()) == ("precious", 0o600, False)
    assert embedded.issued[0] in out.read_text()


def test_modes_of_what_is_there(rm, served, tmp_path: Path) -> None:
    """A partial file, and an older output, that everybody could read are their owner's alone."""
    served.emulator.add_batch("Breakfast", key="B", quantity=9)
    out, partial = tmp_path / "out.csv", tmp_path / "out.csv.ledger.partial"
    for path in (out, partial):
        path.write_text("recipient,code,qr_url,voucher_status,error\n1,CODE,,issued,\n")
        path.chmod(0o666)
    seen = []

    def look(issue):
        seen.append(mode(partial))
        return issue()

    served.on_issue = look
    url = f"sqlite:///{tmp_path}/a.db"
    assert rm("issue", "B", "--output", out, "--ledger", url, "--again").code == 0
    assert (seen, mode(out), mode(tmp_path / "out.csv.1")) == ([0o600], 0o600, 0o600)


@pytest.mark.parametrize("name", ["out.csv.partial", "out.csv.ledger.partial"])
def test_partial_is_a_pipe(rm, embedded, tmp_path: Path, name: str) -> None:
    """A pipe in its place is not waited for."""
    os.mkfifo(tmp_path / name)
    assert rm("issue", "B", "--output", tmp_path / "out.csv").code == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to somebody else")
def test_partial_of_another_user(rm, served, tmp_path: Path) -> None:
    """Somebody else's file would stay theirs to read."""
    served.emulator.add_batch("Breakfast", key="B", quantity=9)
    partial = tmp_path / "out.csv.ledger.partial"
    partial.touch()
    os.chown(partial, 12345, 12345)
    url = f"sqlite:///{tmp_path}/a.db"
    ended = rm("issue", "B", "--output", tmp_path / "out.csv", "--ledger", url)
    assert (ended.code, served.issued(), partial.read_text()) == (2, [], "")
    assert ended.err.endswith("can't be written: it belongs to another user.\n")


@pytest.mark.parametrize("name", ["env.new", "env"])
def test_credentials_through_a_link(rm, stopped, tmp_path, victim: Path, name: str) -> None:
    """The emulator's variables are written through no link, whichever name it has."""
    path = tmp_path / "env"
    (tmp_path / name).symlink_to(victim)
    assert rm("emulator", "--credentials-out", path).code == 130
    assert (victim.read_text(), mode(path), path.is_symlink()) == ("precious", 0o600, False)
    assert "RM_CLIENT_SECRET" in path.read_text()


def test_credentials_that_cannot_be_written(rm, stopped, tmp_path: Path) -> None:
    """What can't take its name leaves no copy of a key behind."""
    ended = rm("emulator", "--credentials-out", tmp_path)
    assert (ended.code, list(tmp_path.iterdir())) == (2, [])
    assert not list(tmp_path.parent.glob("*.new"))


@pytest.mark.parametrize("what", ["pipe", "link", "folder"])
@pytest.mark.parametrize("name", ["token", "token.lock"])
async def test_token_is_no_plain_file(make_client, caplog, tmp_path, victim, what, name) -> None:
    """The loop waits for no pipe, a token goes through no link: the client has one of its own."""
    path = tmp_path / name
    {"pipe": os.mkfifo, "link": lambda path: path.symlink_to(victim), "folder": os.mkdir}[what](
        path
    )
    server = ScriptedServer([TOKEN, ISSUED])
    store = FileTokenStore(tmp_path / "token")
    client = make_client(server, token_source=None, token_store=store)
    assert (await client.issue("KEY")).code == "NAklEfbVdV"
    assert "token: the store failed" in caplog.text
    assert victim.read_text() == "precious"


async def test_token_that_everybody_can_read(tmp_path: Path) -> None:
    """What was there is made its owner's alone when it is read, and so is the lock."""
    path = tmp_path / "token"
    for each in (path, tmp_path / "token.lock"):
        each.write_bytes(b"token")
        each.chmod(0o666)
    store = FileTokenStore(path)
    async with store.lock():
        assert await store.load() == b"token"
    assert (mode(path), mode(tmp_path / "token.lock")) == (0o600, 0o600)


@pytest.mark.parametrize("path", ["token", None, 7])
def test_token_by_a_text(path: object) -> None:
    """A name that is no path is refused at the door."""
    with pytest.raises(ConfigurationError, match=r"pathlib\.Path"):
        FileTokenStore(path)  # type: ignore[arg-type] # what is refused


def test_key_is_a_pipe(tmp_path: Path) -> None:
    """A key's file that nobody writes is refused at once, private or public."""
    path = tmp_path / "key.pem"
    os.mkfifo(path)
    with pytest.raises(ConfigurationError, match=r"key\.pem can't be read: it is no plain file"):
        Credentials("id", "secret", path).private_key_pem()
    with pytest.raises(ConfigurationError, match=r"key\.pem can't be read: it is no plain file"):
        CallbackVerifier([path])


def test_key_is_a_pipe_for_the_command(rm, stopped, tmp_path: Path) -> None:
    """So it is for the emulator's option."""
    path = tmp_path / "key.pem"
    os.mkfifo(path)
    ended = rm("emulator", "--public-key", path)
    assert (ended.code, stopped) == (2, [])
    assert ended.err.endswith("key.pem can't be read: it is no plain file.\n")


def test_key_behind_a_link(tmp_path: Path) -> None:
    """Secrets are mounted as links: a name that its user gave may be one."""
    path = tmp_path / "key.pem"
    path.symlink_to(KEY_FILE)
    (tmp_path / "public.pem").symlink_to(PUBLIC_KEY_FILE)
    os.close(open_plain(path))
    assert CallbackVerifier([tmp_path / "public.pem"])


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_replacement_of_what_is_no_file(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """A pipe or a device keeps its name: to root, `/dev/null` would be one that can be taken."""
    path = tmp_path / "env"
    make(path)
    kind = stat.S_IFMT(path.lstat().st_mode)
    with pytest.raises(OSError, match=r"no plain file|Is a directory"):
        replace_private(path, b"new")
    assert [(each, stat.S_IFMT(each.lstat().st_mode)) for each in tmp_path.iterdir()] == [
        (path, kind)
    ]


def test_older_file_is_kept(tmp_path: Path) -> None:
    """Under the first number that is free, and under its own name until that is taken."""
    path = tmp_path / "report.json"
    for number, content in enumerate(["first", "second"], start=1):
        path.unlink(missing_ok=True)
        path.write_text(content)
        assert keep_older(path) == tmp_path / f"report.json.{number}"
    names = {each.name: each.read_text() for each in tmp_path.iterdir()}
    assert names == {
        "report.json": "second", "report.json.1": "first", "report.json.2": "second",
    }  # fmt: skip


def test_replacement_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing half-written is left, and what was there stays."""
    path = tmp_path / "env"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        replace_private(path, b"new")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("env", "old")]


def test_mode_that_cannot_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that stays open to others is not used, and left closed."""
    path = tmp_path / "file"
    path.touch(mode=0o666)
    path.chmod(0o666)
    closed: list[int] = []
    close = os.close

    def noted(number: int) -> None:
        closed.append(number)
        close(number)

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    monkeypatch.setattr(os, "close", noted)
    with pytest.raises(PermissionError):
        open_private(path, os.O_RDONLY)
    assert len(closed) == 1
