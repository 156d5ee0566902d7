"""``rm-voucher campaign``: what each command shows, writes, refuses, and ends with."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfoNotFoundError

import attrs
import openpyxl
import orjson
import pytest
from support.command_runs import rows

from rm_voucher import Voucher, VoucherStatus
from rm_voucher.cli.campaign import gather, sources
from rm_voucher.cli.campaign.sources import read_ledger, read_listing
from rm_voucher.cli.connect import make_client
from rm_voucher.ledger import Ledger
from rm_voucher.ledger.sql.guard import FileGuard

OURS = ["code", "qr_url", "voucher_status", "error"]
NAMES = [f"person{n}@example.com" for n in range(1, 13)]
JOINED = ["standing", "status", "assigned_at", "redeemed_at", "used_at", "expires_at"]


@pytest.fixture
def campaign(shop):
    """Of twelve people: one is held, one refused; four have codes, and six were not asked."""
    assert shop.issue(faults={2: "lost", 5: "refused"}).code == 4
    return shop


def standings(shop, *options) -> dict[str, int]:
    (shown,) = shop.campaign("status", "--json", *options).json
    return {name: number for name, number in shown["standings"].items() if number}


def code_of(shop, name: str) -> str:
    shop.campaign("status", "--recipients", shop.people, "--output", shop.folder / "now.csv")
    (row,) = [
        row for row in rows((shop.folder / "now.csv").read_text()) if row["recipient"] == name
    ]
    return row["code"]


def test_status(campaign):
    """Numbers with their meaning, who is held and why, and the exit code of what is unknown."""
    ended = campaign.campaign("status")
    assert ended.code == 4
    lines = ended.out.splitlines()
    assert lines[0] == "Breakfast: 12 recipients, 4 with a code"
    assert "  4  served       have a code that is not redeemed or used yet" in lines
    assert "  1  held         may have a voucher: the outcome is unknown" in lines
    held = [line for line in lines if line.startswith("held: ")]
    assert len(held) == 1
    assert held[0].startswith(f"held: {NAMES[1]}, sent 20")
    assert "the listing can't tell: a person decides (attempt " in held[0]
    assert any(line.startswith("refused: 1: VALIDATION_ERROR: The server finds") for line in lines)
    assert "'rm-voucher ledger reconcile'" in ended.err
    assert not [code for code in campaign.codes() if code in ended.out + ended.err]


def test_status_keeps_a_persons_list(campaign):
    """All columns in their order, ours after them; no formula; readable by its owner alone."""
    output = campaign.folder / "status.csv"
    ended = campaign.campaign("status", "--recipients", campaign.people, "--output", output)
    assert f"{output}: 12 recipients." in ended.err
    written = rows(output.read_text())
    assert list(written[0]) == ["Name", "recipient", "Note", *OURS, *JOINED]
    assert [row["recipient"] for row in written] == NAMES
    assert written[0]["Name"] == "Ms <b>1</b>"
    assert written[0]["Note"] == "'=1+1"
    assert [row["standing"] for row in written[:6]] == [
        *("served", "held", "served", "served", "refused", "served")
    ]
    assert {row["code"] for row in written} - {""} <= set(campaign.codes())
    assert written[0]["status"] == "ISSUED"
    assert written[0]["assigned_at"].endswith("Z")
    assert stat.S_IMODE(output.stat().st_mode) == 0o600


def test_rows_that_are_nobodys(campaign):
    """A blank row, and a second row of somebody, stay where they are: columns can be pasted."""
    lines = campaign.people.read_text().splitlines()
    campaign.people.write_text("\n".join([*lines[:3], ",,", lines[1], *lines[3:], lines[2], ""]))
    output = campaign.folder / "status.csv"
    ended = campaign.campaign("status", "--recipients", campaign.people, "--output", output)
    assert "2 rows name a recipient who stands there already." in ended.out
    written = rows(output.read_text())
    expected = [*NAMES[:2], "", NAMES[0], *NAMES[2:], NAMES[1]]
    assert [row["recipient"] for row in written] == expected
    assert [n for n, row in enumerate(written) if not row["standing"]] == [2, 3, 14]
    assert [written[n]["voucher_status"] for n in (2, 3, 14)] == ["", "duplicate", "duplicate"]


def test_what_becomes_of_vouchers(campaign):
    """Redeemed, used, void, expired, reinstated: each as RM lists it."""
    state = campaign.served.emulator.state
    redeemed, used, expired, reinstated = (code_of(campaign, NAMES[n]) for n in (0, 2, 3, 5))
    state.redeem([redeemed])
    state.redeem([used])
    campaign.day(1)
    state.void(used)
    state.expire(expired)
    state.void(reinstated)
    state.reinstate(reinstated)
    assert standings(campaign) == {
        "redeemed": 2,
        "used": 1,
        "expired": 1,
        "held": 1,
        "refused": 1,
        "never_asked": 6,
    }


def test_who_was_never_asked_is_who_is_in_the_list_alone(campaign):
    """The list may have grown; who is in the ledger alone follows it."""
    campaign.people.write_text("recipient\nnew@example.com\n" + "\n".join(NAMES[:5]) + "\n")
    output = campaign.folder / "status.jsonl"
    campaign.campaign("status", "--recipients", campaign.people, "--output", output)
    written = [orjson.loads(line) for line in output.read_bytes().splitlines()]
    names = [row["recipient"] for row in written]
    assert names[:6] == ["new@example.com", *NAMES[:5]]
    assert sorted(names[6:]) == sorted(NAMES[5:])
    assert written[0]["standing"] == "never_asked"


def test_resend(campaign):
    """Refused and never asked, with their own columns; never who is held. It can be run again."""
    output = campaign.folder / "again.csv"
    ended = campaign.campaign("resend", "--recipients", campaign.people, "--output", output)
    assert ended.code == 0
    assert "Left out: 1 held." in ended.err
    assert f"{output}: 7 recipients, 1 refused and 6 never asked." in ended.err
    written = rows(output.read_text())
    assert list(written[0]) == ["Name", "recipient", "Note"]
    assert [row["recipient"] for row in written] == [NAMES[4], *NAMES[6:]]
    before = len(campaign.codes())
    campaign.people.write_text(output.read_text())
    assert campaign.issue().code == 0
    assert len(campaign.codes()) == before + 7
    again = campaign.campaign("resend", "--output", output)
    assert (again.code, len(rows(output.read_text()))) == (0, 7)
    assert "Nobody is to be asked again: no file is written." in again.err


def test_command_that_is_next(campaign):
    """It is one that can be copied."""
    output = campaign.folder / "to send.csv"
    ended = campaign.campaign("resend", "--output", output)
    line = ended.err.splitlines()[-1]
    assert line == (
        f"Next: rm-voucher issue B --ledger {campaign.url} --recipients '{output}' "
        f"--output '{campaign.folder}/to send-vouchers.csv' --other-people"
    )


def test_resend_of_a_ledger_alone(campaign):
    """Who is refused, and what waits, by the ids of the ledger."""
    output = campaign.folder / "again.csv"
    campaign.campaign("resend", "--output", output)
    assert [row["recipient"] for row in rows(output.read_text())] == [NAMES[4], *NAMES[6:]]


def test_given_up(campaign):
    """Whoever a person gave up is neither held nor asked for again."""
    (shown,) = campaign.campaign("status", "--json").json
    (held,) = shown["held"]
    campaign.rm("ledger", "resolve", campaign.url, held["attempt"], "--write-off")
    assert standings(campaign)["given_up"] == 1
    output = campaign.folder / "again.csv"
    assert "Left out: 1 given up" in campaign.campaign("resend", "--output", output).err


def test_report(campaign):
    """A page for its owner alone, and the same figures as JSON; it may be made again."""
    output = campaign.folder / "report.html"
    for _ in range(2):
        ended = campaign.campaign("report", "--output", output, "--json")
        assert ended.code == 0
        (shown,) = ended.json
        assert shown["standings"]["held"] == 1
        assert shown["batch"]["label"] == "Breakfast"
        assert shown["listing"]["issued"] == len(campaign.codes()) == 5
        assert output.read_text().startswith("<!doctype html>")
        assert stat.S_IMODE(output.stat().st_mode) == 0o600
    assert not [code for code in campaign.codes() if code in output.read_text()]
    campaign.campaign("report", "--output", output, "--reveal")
    (unknown,) = set(campaign.codes()) - {code_of(campaign, name) for name in NAMES}
    assert unknown in output.read_text()


def test_report_replaces_nothing_else(campaign):
    """A file of codes that is named by mistake is kept."""
    output = campaign.folder / "vouchers.csv"
    output.write_text("codes")
    ended = campaign.campaign("report", "--output", output)
    assert (ended.code, output.read_text()) == (2, "codes")
    assert "is there, and is no report" in ended.err
    folder = campaign.campaign("report", "--output", campaign.folder)
    assert (folder.code, "is a folder" in folder.err) == (2, True)
    nowhere = campaign.campaign("report", "--output", campaign.folder / "no" / "report.html")
    assert (nowhere.code, "can't be written" in nowhere.err) == (2, True)
    nothing = campaign.campaign("report")
    assert (nothing.code, "--output" in nothing.err) == (2, True)


def test_days_are_those_of_the_time_zone(campaign):
    """An hour before midnight in Malaysia and an hour after are two days, and one in UTC."""
    emulator = campaign.served.emulator
    now = emulator.virtual_clock.now()
    midnight = (now + 8 * 3600) // 86400 * 86400 + 86400 - 8 * 3600
    emulator.advance(midnight + 86400 - 3600 - now)
    emulator.state.void(code_of(campaign, NAMES[0]))
    emulator.advance(7200)
    emulator.state.void(code_of(campaign, NAMES[2]))
    used = {}
    for zone in ("Asia/Kuala_Lumpur", "UTC"):
        (shown,) = campaign.campaign("report", "--json", "--timezone", zone).json
        assert shown["timezone"] == zone
        used[zone] = [day["used"] for day in shown["days"] if day["used"]]
    assert used == {"Asia/Kuala_Lumpur": [1, 1], "UTC": [2]}


def test_time_zone_that_is_not_known(campaign, monkeypatch):
    """Another one than Malaysia's must be installed; Malaysia's is known anyway."""
    ended = campaign.campaign("report", "--json", "--timezone", "Asia/Nowhere")
    assert (ended.code, "'Asia/Nowhere' is not known here" in ended.err) == (2, True)

    def nothing(name: str) -> None:
        raise ZoneInfoNotFoundError(name)

    monkeypatch.setattr(gather, "ZoneInfo", nothing)
    assert campaign.campaign("report", "--json").code == 0
    assert campaign.campaign("report", "--json", "--timezone", "UTC").code == 2


def test_reconcile(shop):
    """Two lists that are the same; then each kind of difference, both ways."""
    assert shop.issue().code == 0
    same = shop.campaign("reconcile")
    assert (same.code, same.err) == (0, "")
    assert same.out.endswith("The two lists are the same.\n")
    assert "12 issued vouchers are listed by RM, and 12 are on our list." in same.out
    shop.rm("issue", "B")  # by somebody else
    output = shop.folder / "differences.csv"
    ended = shop.campaign("reconcile", "--output", output)
    assert ended.code == 1
    assert "RM lists these, and our list does not have them: 1" in ended.out
    (row,) = rows(output.read_text())
    assert (row["difference"], row["code"]) == ("unknown_to_us", shop.codes()[-1])
    assert (row["recipient"], row["status"]) == ("", "ISSUED")
    assert shop.codes()[-1] not in ended.out + ended.err
    assert shop.codes()[-1] in shop.campaign("reconcile", "--reveal").out
    shop.rm("ledger", "reconcile", shop.url, "B", "--settle", 0)
    known = shop.campaign("reconcile")
    assert known.code == 0
    assert "also listed: 1 issued by somebody else, as the ledger found out" in known.out


def test_reconcile_of_what_is_not_listed(shop, monkeypatch):
    """A code of ours that the listing leaves out, and one whose status does not fit."""
    assert shop.issue().code == 0
    gone, odd = shop.codes()[:2]
    make: Any = read_listing

    async def read_some(client, batch_key, join):
        class Client:
            batch = client.batch

            def vouchers(self, key):
                class Pager:
                    async def pages(self):
                        async for page in client.vouchers(key).pages():
                            items = [spoiled(each) for each in page.items if each.code != gone]
                            yield attrs.evolve(page, items=tuple(items))

                return Pager()

        def spoiled(voucher: Voucher) -> Voucher:
            if voucher.code == odd:
                return attrs.evolve(voucher, status=VoucherStatus.VALID)
            return voucher

        return await make(Client(), batch_key, join)

    monkeypatch.setattr(gather, "read_listing", read_some)
    ended = shop.campaign("reconcile", "--json")
    assert ended.code == 1
    (shown,) = ended.json
    assert shown["differences"] == {
        "unknown_to_us": 0,
        "not_listed": 1,
        "status_differs": 1,
        "same_code": 0,
    }
    assert [each["difference"] for each in shown["differing"]] == ["not_listed", "status_differs"]
    assert shown["listing"]["issued"] == 10
    ended = shop.campaign("reconcile")
    assert "by the batch's balance 12 are: the listing may not be complete" in ended.out
    assert standings(shop) == {"served": 10, "unlisted": 1, "other": 1}


def test_reconcile_of_what_is_held(campaign):
    """The voucher of a lost answer is listed, and nobody's: they differ."""
    ended = campaign.campaign("reconcile", "--json")
    assert ended.code == 1
    (shown,) = ended.json
    assert (shown["held"], shown["differences"]["unknown_to_us"]) == (1, 1)


def test_held_alone(shop):
    """Where nothing differs, but an outcome is unknown, the exit code says so: 4."""
    assert shop.issue(faults={1: "lost"}).code == 4
    shop.served.emulator.state.stock.batch("B").listed.pop(0)
    shop.served.emulator.state.stock.batch("B").issued -= 1
    ended = shop.campaign("reconcile")
    assert (ended.code, "1 held" in ended.err) == (4, True)


RESULT = "Name,E-Mail,code,qr_url,voucher_status,error\n"


@pytest.fixture
def results(shop):
    """An output file of a run without a ledger."""
    codes = [row["code"] for row in shop.rm("issue", "B", "--count", 3).rows]
    lines = [f"N{n},p{n}@example.com,{code},https://qr/{n},issued," for n, code in enumerate(codes)]
    lines += [
        "N3,p3@example.com,,,failed,sold out",
        "N4,p4@example.com,,,unresolved,time-out",
        "N5,p5@example.com,,,not_asked,",
        "N6,p5@example.com,,,duplicate,as line 7",
        f"N7,p7@example.com,{codes[0]}x,,unkept,a full disk",
        "",
    ]
    path = shop.folder / "results.csv"
    path.write_text(RESULT + "\n".join(lines))
    return path


def run(shop, command, results, *options):
    return shop.rm("campaign", command, "B", "--results", results, *options)


def test_results_without_a_ledger(shop, results):
    """The file that a run wrote is enough, under whatever header the recipients are."""
    ended = run(shop, "status", results, "--json")
    assert ended.code == 4
    assert "the recipients are in the column 'E-Mail'" in ended.err
    (shown,) = ended.json
    found = {name: number for name, number in shown["standings"].items() if number}
    assert found == {"served": 3, "held": 2, "refused": 1, "never_asked": 1}
    assert [each["error"] for each in shown["held"]] == ["time-out", "a full disk"]
    output = shop.folder / "status.csv"
    run(shop, "status", results, "--output", output)
    written = rows(output.read_text())
    assert list(written[0]) == ["Name", "E-Mail", *OURS, *JOINED]
    assert [row["Name"] for row in written] == [f"N{n}" for n in range(8)]
    duplicate = written[6]
    assert (duplicate["voucher_status"], duplicate["error"]) == ("duplicate", "as line 7")
    assert duplicate["standing"] == ""
    again = shop.folder / "again.csv"
    run(shop, "resend", results, "--output", again)
    assert [list(row.values()) for row in rows(again.read_text())] == [
        ["N3", "p3@example.com"],
        ["N5", "p5@example.com"],
    ]


def test_code_that_came_with_an_error(shop, results):
    """It proves nothing for its recipient, and is no stranger either."""
    (row,) = shop.rm("issue", "B").rows
    text = results.read_text().replace("p4@example.com,,", f"p4@example.com,{row['code']},")
    results.write_text(text)
    ended = run(shop, "reconcile", results, "--json")
    (shown,) = ended.json
    assert shown["strangers"] == {"seen": 1}
    assert (ended.code, shown["held"], sum(shown["differences"].values())) == (4, 2, 0)
    output = shop.folder / "status.csv"
    run(shop, "status", results, "--output", output)
    held = next(each for each in rows(output.read_text()) if each["Name"] == "N4")
    assert (held["code"], held["standing"]) == ("", "held")


def test_results_beside_a_list(shop, results):
    """Who is in the list alone was never asked; the list's columns are kept."""
    people = shop.folder / "people.csv"
    people.write_text("Phone;Extra\np9@example.com;x\np0@example.com;y\n")
    output = shop.folder / "again.csv"
    ended = run(shop, "resend", results, "--recipients", people, "--output", output)
    assert output.read_text().replace("\r", "") == "Phone;Extra\np9@example.com;x\n"
    assert "1 refused are not in your list: they are left out." in ended.err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("recipient\na\n", "is no output file of 'rm-voucher issue'"),
        (RESULT + "a,b,,,wrong,\n", "'wrong' is no voucher_status"),
        (RESULT + "a,b,,,issued,\n", "issued, and no code"),
        ("", "is empty"),
    ],
)
def test_what_is_no_file_of_results(shop, content, says):
    """A sentence, and 2."""
    path = shop.folder / "x.csv"
    path.write_text(content)
    ended = run(shop, "status", path)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "Give one of --ledger and --results"),
        (
            ("--ledger", "sqlite:///x.db", "--results", "x.csv"),
            "Give one of --ledger and --results",
        ),
        (("--results", "x.csv", "--namespace", "a"), "--namespace is about a ledger"),
        (("--results", "x.csv.partial"), "who has no row there may have a voucher"),
        (("--results", "missing.csv"), "missing.csv"),
        (("--ledger", "sqlite:///x.db", "-e", "memory"), "the environment is 'memory'"),
    ],
)
def test_mistakes(shop, options, says):
    """Nothing is asked: a sentence, and 2."""
    ended = shop.rm("campaign", "status", "B", *options)
    assert (ended.code, ended.out) == (2, "")
    assert says in ended.err


def test_no_ledger_is_made(shop):
    """A misspelt file is no empty ledger."""
    ended = shop.campaign("status")
    assert (ended.code, "There is no file" in ended.err) == (1, True)
    assert not list(shop.folder.glob("ledger.db*"))


def test_ledger_of_another_account(shop, monkeypatch):
    """Its list and this account's listing are of two campaigns."""
    shop.issue()
    monkeypatch.setenv("RM_CLIENT_ID", "second")
    shop.served.emulator.authenticator._client_id = "second"
    ended = shop.campaign("status")
    assert (ended.code, "belongs to another account" in ended.err) == (1, True)


def test_batch_that_there_is_not(shop):
    """RM says so."""
    shop.issue()
    ended = shop.rm("campaign", "status", "NOPE", "--ledger", shop.url)
    assert ended.code == 1


def test_codes_of_before_the_ledger(shop):
    """They are in its baseline: listed, not ours, and no difference."""
    shop.rm("issue", "B", "--count", 3)
    assert shop.issue().code == 0
    ended = shop.campaign("reconcile")
    assert ended.code == 0
    assert "also listed: 3 issued before the ledger began" in ended.out


def test_qr_url_of_an_adopted_code(campaign):
    """A ledger that adopted a code by its listing or a person's word has its URL as well."""
    (shown,) = campaign.campaign("status", "--json").json
    (lost,) = set(campaign.codes()) - {code_of(campaign, name) for name in NAMES}
    attempt = shown["held"][0]["attempt"]
    assert campaign.rm("ledger", "resolve", campaign.url, attempt, "--adopt", lost).code == 0
    exported = campaign.rm("ledger", "export", campaign.url).rows
    assert next(row["qr_url"] for row in exported if row["code"] == lost).endswith(lost)


def test_every_command_reads_alone(campaign):
    """Nothing but reads is sent."""
    before = dict(campaign.served.emulator.requests)
    output = campaign.folder / "x"
    for command in ("status", "report", "resend", "reconcile"):
        campaign.campaign(command, "--output", f"{output}-{command}")
    now = campaign.served.emulator.requests
    changed = {name for name, times in now.items() if times != before.get(name, 0)}
    assert changed <= {"token", "batch", "vouchers", "batches"}


def test_during_a_run(campaign):
    """Whoever only looks needs not have the ledger for themselves."""
    guard = FileGuard(campaign.folder / "ledger.db")
    guard.acquire()
    ended = campaign.campaign("status")
    guard.release()
    assert (ended.code, "4 with a code" in ended.out) == (4, True)


def test_voucher_that_is_issued_meanwhile(shop, monkeypatch):
    """Our list is read first; what was issued after that is ours, and no difference."""
    assert shop.issue("--output", shop.folder / "first.csv").code == 0

    async def read_and_issue(ledger, batch_key, join):
        await read_ledger(ledger, batch_key, join)
        async with make_client(None) as client, Ledger.open(shop.url) as other:
            await other.issue(client, batch_key, "late")

    monkeypatch.setattr(gather, "read_ledger", read_and_issue)
    ended = shop.campaign("reconcile", "--json")
    assert ended.code == 0
    assert (ended.json[0]["listing"]["issued"], ended.json[0]["strangers"]) == (13, {})


def test_long_listing_shows_how_far_it_is(shop, monkeypatch):
    """A listing of many pages takes a while."""
    assert shop.issue().code == 0
    monkeypatch.setattr(sources, "_LONG", 10)
    assert "6 of 12" in shop.campaign("status").err


def test_nothing_is_held(shop):
    """No file is written for a person to fill in."""
    assert shop.issue().code == 0
    path = shop.folder / "held.csv"
    ended = shop.rm("ledger", "reconcile", shop.url, "B", "--settle", 0, "--output", path)
    assert (ended.code, path.exists()) == (0, False)
    assert "Nothing is held: no file is written." in ended.err


def cells(path: Path) -> list[tuple[Any, ...]]:
    """Return the rows of a workbook's sheet."""
    book: Any = openpyxl.load_workbook(path)
    return list(book.active.values)


def test_workbook(campaign):
    """A list in .xlsx stays one: codes are text, numbers numbers, columns and order are kept."""
    people, output = campaign.folder / "people.xlsx", campaign.folder / "status.xlsx"
    book: Any = openpyxl.Workbook()
    book.active.append(["Points", "E-Mail"])
    for number, name in enumerate(NAMES):
        book.active.append([number * 10, name])
    book.save(people)
    ended = campaign.campaign("status", "--recipients", people, "--output", output)
    assert (ended.code, "the column 'E-Mail'" in ended.err) == (4, True)
    head, *written = cells(output)
    assert list(head) == ["Points", "E-Mail", *OURS, *JOINED]
    assert [row[:2] for row in written] == [(n * 10, name) for n, name in enumerate(NAMES)]
    assert isinstance(written[0][2], str)
    again = campaign.folder / "again.xlsx"
    campaign.campaign("resend", "--recipients", people, "--output", again)
    assert [row[0] for row in cells(again)] == [
        "Points",
        *(n * 10 for n in (4, 6, 7, 8, 9, 10, 11)),
    ]
