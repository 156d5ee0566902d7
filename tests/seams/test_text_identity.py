"""What nobody sees names nothing.

A code or batch key with a character that can't be seen is refused before anything is sent, and the
sentence says where it is, never what the code is. A code that *arrives* with one is a code in hand.
Texts that look alike compare equal; a stranger's text is shown without what it could do.
"""

import itertools
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.answers import ok
from support.scripted_server import ScriptedServer

from rm_voucher import InvalidRequestError, Voucher, VoucherStatus
from rm_voucher.models import BatchStatus, mask
from rm_voucher.text import comparable, find_unseen, printable, typeable

UNSEEN = {
    "zero width space": "\u200b",
    "zero width joiner": "\u200d",
    "word joiner": "\u2060",
    "byte order mark": "\ufeff",
    "soft hyphen": "\u00ad",
    "right-to-left override": "\u202e",
    "right-to-left isolate": "\u2067",
    "tag": "\U000e0041",
    "variation selector": "\ufe0f",
    "variation selector of the supplement": "\U000e0100",
    "combining grapheme joiner": "\u034f",
    "Hangul filler": "\u3164",
    "Khmer vowel inherent": "\u17b4",
    "Mongolian vowel separator": "\u180e",
    "unassigned": "\u0378",
    "no character": "\uffff",
    "private use": "\ue000",
    "half a pair": "\ud800",
    "no-break space": "\u00a0",
    "ideographic space": "\u3000",
    "line separator": "\u2028",
    "control": "\x1b",
    "C1 control": "\x9b",
    "tab": "\t",
}
CALLS = {
    "issue": lambda client, text: client.issue(text),
    "get": lambda client, text: client.get(text),
    "void": lambda client, text: client.void(text),
    "reinstate": lambda client, text: client.reinstate(text, pin="1"),
    "redeem": lambda client, text: client.redeem(["OTHER", text]),
    "vouchers": lambda client, text: client.vouchers(text),
    "member get": lambda client, text: client.member("60", "1").get(text),
    "member redeem": lambda client, text: client.member("60", "1").redeem(text),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", UNSEEN)
async def test_code_with_what_nobody_sees_is_refused(buyer, recorder, call, name):
    """By every door, before a token is bought, with its place and number."""
    char = UNSEEN[name]
    with pytest.raises(InvalidRequestError) as caught:
        await CALLS[call](buyer, f"SECRET{char}CODE")
    assert f"has U+{ord(char):04X} at position 7, a character that can't be seen" in str(
        caught.value
    )
    assert "SECRET" not in str(caught.value)
    assert "CODE" not in str(caught.value)
    assert recorder.requests == []


@pytest.mark.parametrize(
    "code", ["rms@xR43u4bRhUU", "A(1)", "A 1", "café", "cafe\u0301", "漢🎫", "ひ"]
)
async def test_code_that_is_seen_is_sent(make_client, code):
    """What can be seen may be a code, in any script."""
    server = ScriptedServer([ok({"item": {"code": code, "status": "VALID"}, "code": "SUCCESS"})])
    assert (await make_client(server).get(code)).code == code


@pytest.mark.parametrize("name", [name for name in UNSEEN if name != "half a pair"])
async def test_code_that_arrives_is_kept(make_client, name):
    """An issued code is a code in hand, whatever is in it: none is dropped, and none is altered."""
    code = f"AB{UNSEEN[name]}CD"
    item = ok({"item": {"code": code}, "code": "SUCCESS"})
    listing = ok({"items": [{"code": code, "status": "ISSUED"}], "code": "SUCCESS"})
    client = make_client(ScriptedServer([item, listing]))
    assert (await client.issue("KEY")).code == code
    assert [voucher.code async for voucher in client.vouchers("KEY")] == [code]


def test_spellings_that_look_alike_are_one():
    """José composed, decomposed, and with characters that don't show."""
    spellings = ["José", "Jose\u0301", "Jos\u00e9\u200b", "\ufeffJose\u0301", "Jo\u00ads\u00e9"]
    spellings += ["Jose\u200d\u0301", "José\ufe0f", "J\u2060osé", "José\U000e0100"]
    assert {comparable(text) for text in spellings} == {"José"}
    others = ["Jose", "josé", "JOSÉ", "José ", " José", "Josе́"]
    assert len({comparable(text) for text in ["José", *others]}) == 7


@given(st.text())
def test_comparable_is_settled(text):
    """Comparing what was made comparable changes nothing, in any normal form."""
    settled = comparable(text)
    assert comparable(settled) == settled
    assert comparable(unicodedata.normalize("NFD", text)) == settled
    assert unicodedata.is_normalized("NFC", settled)
    assert not any(unicodedata.category(char) == "Cf" for char in settled)


@given(st.text())
def test_typeable_is_settled(text):
    """It has nothing that isn't seen, in any spelling of the text, and typing it gives it again."""
    settled = typeable(text)
    assert typeable(settled) == settled
    assert typeable(unicodedata.normalize("NFD", text)) == settled
    assert find_unseen(settled) is None
    assert typeable(f" \u00a0{text}\u2003") == settled


@pytest.mark.parametrize("name", UNSEEN)
def test_unseen_character_is_found_where_it_is(name):
    """At either end and in the middle; the first one is named."""
    number = f"U+{ord(UNSEEN[name]):04X}"
    for before, after in itertools.product(["", "a", "é" * 9], repeat=2):
        text = before + UNSEEN[name] + after
        assert find_unseen(text) == f"{number} at position {len(before) + 1}"
        assert find_unseen(f"{text}\u200b") == find_unseen(text)


@pytest.mark.parametrize("text", ["", "ABC 123", "rms@x#", "é", "e\u0301", "漢", "🎫", "เก็บ", "ك"])
def test_nothing_is_found_where_all_is_seen(text):
    """Letters with marks, symbols and spaces are seen."""
    assert find_unseen(text) is None


HOSTILE = {
    "\x1b[2J": r"\x1b[2J",
    "\x1b]52;c;cm0gLXJm\x07": r"\x1b]52;c;cm0gLXJm\x07",
    "a\rb\nc\td": r"a\rb\nc\td",
    "\x9b31m": r"\x9b31m",
    "\u202egnp.exe": r"\u202egnp.exe",
    "\u2066a\u2069": r"\u2066a\u2069",
    "a\u2028b\x85c": r"a\u2028b\x85c",
    "\ud800": r"\ud800",
    "\U000e0041": r"\U000e0041",
    "Café 漢 🎫": "Café 漢 🎫",
    "": "",
}


@pytest.mark.parametrize("text", HOSTILE)
def test_strangers_text_is_shown_harmless(text):
    """What would act on a terminal, a table or a log is written out."""
    assert printable(text) == HOSTILE[text]


@given(st.text())
def test_shown_text_is_one_printable_line(text):
    """Whatever a stranger writes, and twice as once."""
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    assert printable(shown) == shown


@pytest.mark.parametrize("enum", [VoucherStatus, BatchStatus])
@pytest.mark.parametrize("text", [text for text in HOSTILE if text and text != "Café 漢 🎫"])
def test_repr_of_an_unknown_value_is_harmless(enum, text):
    """A status that nobody documented stays the text it is, and its repr and name are shown."""
    unknown = enum(text)
    assert unknown == text
    assert unknown.value == text
    assert not unknown.is_known
    assert repr(unknown).isprintable()
    assert unknown.name == HOSTILE[text]
    assert repr(Voucher(status=unknown, code=f"{text}12345678", label=text)).isprintable()
    assert mask(f"{text}12345678").isprintable()
