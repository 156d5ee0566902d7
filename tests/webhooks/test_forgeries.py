"""The verifier against forgers: whatever is changed, what it accepts is what RM signed."""

import json
import os
import random
import sys
from collections import Counter

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.deliveries import NONCE, NOW, SIGNER, URL, deliver, told, verifier
from support.forgeries import NAMES, forge, write
from support.rm_signature import canonical, expected_text

from rm_voucher import CallbackError
from rm_voucher.emulator.keys import new_private_key
from rm_voucher.signing import RsaSigner, format_signature, parse_signature
from rm_voucher.webhooks import CallbackStep, VoucherEvent

CASES = int(os.environ.get("FUZZ_CASES", "20000"))
FEW_CASES = 3000
SEED = int(os.environ.get("FUZZ_SEED", "20261121"))
GOOD = deliver()
OTHER_URL = "https://other.invalid/callback"
ODD = told("Ä<&>\u2028🎫", payload=[{"b": [1, True, None, "", 1.0, -1]}, "\\u003c"], label="é\n")
REAL = [
    deliver(value, url=url, nonce=f"{NONCE}{number}{len(value['item'])}", timestamp=timestamp)
    for number, url in enumerate([URL, None])
    for value in (told(), ODD)
    for timestamp in (NOW, f"{NOW}.125", f"{NOW - 60}000")
]
# What RM signed too, but not for this merchant, not of a callback, or long ago.
STRANGE = [
    deliver(url=OTHER_URL),
    deliver(method="GET"),
    deliver({}),
    deliver({"code": "SUCCESS", "item": None}, url=None),
    deliver(timestamp=NOW - 100_000),
    deliver(nonce=f"{NONCE}&requestUrl={OTHER_URL}", url=None),
]
FORGED = [deliver(signer=RsaSigner.from_pem(new_private_key())), attrs.evolve(GOOD, signature="")]
OF_SIGNATURE = {parse_signature(one.signature): one for one in [*REAL, *STRANGE, GOOD]}
VERIFIERS = [
    verifier(now=now, url=url, requires_url=requires_url, max_body_bytes=4096)
    for now in [*[NOW] * 9, NOW + 10_000]
    for url, requires_url in [(URL, False), (URL, True), (None, False)]
]


def check_accepted(pairs, body, accepted):
    """Hold an accepted delivery against what was signed, by other means than the package's."""
    found = {name: [value for key, value in pairs if key.lower() == name] for name in LOWER}
    ((signature,), (nonce,), (timestamp,)) = found.values()
    signed = OF_SIGNATURE[parse_signature(signature)]
    assert signed in REAL
    assert (nonce, timestamp) == (signed.nonce, signed.timestamp)
    meaning = canonical(json.loads(signed.body))
    assert canonical(accepted) == canonical(json.loads(body)) == meaning


LOWER = [name.lower() for name in NAMES]


@pytest.mark.parametrize("cases", [FEW_CASES, pytest.param(CASES, marks=pytest.mark.long)])
def test_mutated_deliveries(cases):
    """Of many changed deliveries none is accepted whose object, nonce or timestamp are not the
    signed ones, nor does any raise anything but a refusal."""
    rng = random.Random(SEED)
    ends: Counter[str] = Counter()
    for number in range(cases):
        real = rng.choice(REAL)
        pairs, body = forge(rng, real, [*REAL, *STRANGE, *FORGED])
        try:
            accepted = rng.choice(VERIFIERS).authenticate(pairs, body)
        except CallbackError as exc:
            ends[exc.step] += 1
            continue
        except Exception as exc:
            raise AssertionError(f"{number}: {pairs} {body!r}") from exc
        check_accepted(pairs, body, accepted)
        is_as_sent = body == real.body and pairs == list(real.headers.items())
        ends["untouched" if is_as_sent else "same meaning"] += 1
    # Neither spoils it everything nor nothing, and each check has its share.
    assert ends["same meaning"] > 0.1 * cases
    for step in set(CallbackStep) - {CallbackStep.EVENT}:
        assert ends[step] > 0.005 * cases, step
    if "FUZZ_CASES" in os.environ:
        sys.stdout.write(f"\n{cases:8} deliveries of seed {SEED}\n")
        for end, count in ends.most_common():
            sys.stdout.write(f"{count:8} {end}\n")


def test_every_cut_of_the_signed_text():
    """However the signed text is cut into nonce and timestamp anew, only RM's own cut is good."""
    accepted = []
    for real in (deliver(), deliver(url=None), deliver(url=OTHER_URL), STRANGE[-1]):
        text = f"{real.nonce}&requestUrl={OTHER_URL}&signType=sha256&timestamp={NOW}"
        for check in VERIFIERS[:3]:
            for end in range(1, len(text) + 1):
                cut = attrs.evolve(real, nonce=text[:end])
                for timestamp in (real.timestamp, f"{real.timestamp}000"):
                    try:
                        check.authenticate(*attrs.evolve(cut, timestamp=timestamp))
                        accepted.append((cut.nonce, timestamp))
                    except CallbackError:
                        pass
    # With its URL: by two verifiers; without: by the two that don't require it.
    assert accepted == [(NONCE, str(NOW))] * 4


@pytest.mark.parametrize(
    ("signed", "sent"),
    [
        *(("1", text) for text in ["1.0000000000000003", "true", '"1"', "[1]", "-1", "10", "null"]),
        *(("0", text) for text in ["-0.0", "false", "null", '""', "[]", "{}"]),
        *(("1.0", text) for text in ["1.0000000000000003", "-1.0", "true"]),
        *(("0.0", "-0.0"), ("null", '"null"'), ("[]", "{}"), ("[]", "[[]]"), ('""', '" "')),
        *(('"e\u0301"', '"é"'), ('"A"', '"Ａ"'), ('"A"', '"a"'), ('"A"', '"А"')),
        *(('"<"', r'"\\u003c"'), ('"<"', '"&lt;"'), ('"\u2028"', r'"\\u2028"'), ('"/"', r'"\\/"')),
        *(('"\u2028"', '"\u2029"'), (r'"\u0000"', '""'), (r'"\u0000"', r'"\\u0000"')),
        *(("[1,2]", "[2,1]"), ("[1,2]", "[12]"), ("[1]", "[1,1]"), ("[null]", "[]")),
        *(("9007199254740993", "9007199254740992"), ("9007199254740993", "9007199254740993.0")),
        *(("18446744073709551615", "18446744073709551616"), ("100", "1e1"), ("100", "100.5")),
        *(('{"b":1}', '{"B":1}'), ('{"b":1}', '{"b":1,"":1}'), ('{"b":null}', "{}")),
        *(('{"b":1}', '{"b":1,"b":2}'), ('{"b":{"c":1}}', '{"b":null,"c":1}')),
        *(('"\U0001f3ab"', '"\U0001f3ac"'), (r'"\ufeff"', '""'), ('"a\u200b"', '"a"')),
    ],
)
def test_other_meaning_is_refused(signed, sent):
    """Two values that differ, however little, have no canonical text in common; but a number is a
    float64."""
    delivery = deliver(json.loads(f'{{"a":{signed}}}'), body=f'{{"a":{sent}}}'.encode())
    with pytest.raises(CallbackError) as caught:
        verifier().authenticate(*delivery)
    assert caught.value.step == "signature"


@pytest.mark.parametrize(
    ("signed", "sent"),
    [
        *(("1.0", "1e0"), ("1.0", "1.00"), ("1.0", "10E-1"), ("0", "-0"), ("0.1", "0.10")),
        *(("0.1", "0.1000000000000000055"), ("100.0", "1e2"), ("0.0", "1e-400")),
        *(("1.8446744073709552e+19", "18446744073709551616"), ("1e+20", "1" + "0" * 20)),
        *(('"<"', r'"\u003c"'), ('"é"', r'"\u00e9"'), ('"/"', r'"\/"'), (r'"\b"', r'"\u0008"')),
        *(('"\U0001f3ab"', r'"\ud83c\udfab"'), ('{"b":1}', '{"b":2,"b":1}')),
        *(('{"b":1}', r'{"\u0062":1}'), ('{"b":1,"c":2}', '{"c":2,"b":1}'), ("[1]", "[ 1 ]")),
    ],
)
def test_same_meaning_is_what_was_signed(signed, sent):
    """Another way to write a value is accepted, and what is returned is the signed value, to its
    type: of a name that stands twice the last, of a number too long the nearest."""
    value = json.loads(f'{{"a":{signed}}}')
    accepted = verifier().authenticate(*deliver(value, body=f'{{"a":{sent}}}'.encode()))
    assert canonical(accepted) == canonical(value)


header_names = st.sampled_from([*NAMES, *LOWER, "X-SIGNATURE", "Host", "x-signature "]) | st.text()
surrogates = st.text(st.characters(categories=["Cs", "Cc", "Ll", "Nd"]))
header_values = st.sampled_from(list(GOOD.headers.values())) | st.text() | surrogates
bodies = st.sampled_from([GOOD.body, b"{}", b"null"]) | st.binary()


@given(st.lists(st.tuples(header_names, header_values)), st.sampled_from([*NAMES, None]), bodies)
def test_any_delivery_is_an_event_or_refused(pairs, left_out, body):
    """Whatever headers and bytes come, there is the signed event or a refusal, and nothing else."""
    right = [pair for pair in GOOD.headers.items() if pair[0] != left_out]
    for headers in (pairs, dict(pairs), [*right, *pairs], {**dict(right), **dict(pairs)}):
        try:
            event = verifier().verify(headers, body)
        except CallbackError as exc:
            assert exc.step in list(CallbackStep)
            continue
        assert event == verifier().verify(*GOOD)
        given_ones = {name.lower(): value for name, value in dict(headers).items()}
        assert given_ones.items() >= {n.lower(): v for n, v in GOOD.headers.items()}.items() - {
            ("content-type", "application/json")
        }
        assert body == GOOD.body


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), values), st.randoms(use_true_random=False), st.booleans())
def test_any_object_is_accepted_however_it_is_written(value, rng, doubles):
    """A JSON object that was signed by the published rules, implemented once more, is accepted in
    any order, white space and escapes, and is returned equal."""
    text = expected_text("POST", URL, NONCE, str(NOW), canonical(value))
    delivery = attrs.evolve(
        GOOD,
        signature=format_signature(SIGNER.sign(text.encode())),
        body=write(rng, value, doubles=doubles).encode(),
    )
    assert canonical(verifier().authenticate(*delivery)) == canonical(value)


few = st.recursive(
    st.sampled_from([None, False, True, 0, 1, 1.0, -0.0, "", "0", "1", "null"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=3,
)


@given(st.fixed_dictionaries({"a": few}), st.fixed_dictionaries({"a": few}))
def test_two_objects_share_a_signature_only_if_equal(signed, sent):
    """A signature of one object is none of another one, however near."""
    delivery = deliver(signed, body=json.dumps(sent).encode())
    try:
        accepted = verifier().authenticate(*delivery)
    except CallbackError as exc:
        assert exc.step == "signature"
        assert canonical(signed) != canonical(sent)
    else:
        assert canonical(accepted) == canonical(signed) == canonical(sent)


def test_events_of_the_real_ones():
    """What the mutations start from are events, each accepted as it stands."""
    for real in REAL:
        assert isinstance(verifier(url=URL).verify(*real), VoucherEvent)
    for strange in [*STRANGE, *FORGED]:
        with pytest.raises(CallbackError):
            verifier().verify(*strange)
