"""The description of both APIs, held against what answers by the same tables."""

import jsonschema
import orjson
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from support.files import DOCS
from support.raw_connection import ME

from rm_voucher.emulator import Emulator, Guesses
from rm_voucher.emulator.control.dispatch import control
from rm_voucher.emulator.control.endpoints import ENDPOINTS
from rm_voucher.emulator.control.openapi import describe
from rm_voucher.emulator.examples import examples
from rm_voucher.emulator.guesses import LastPage
from rm_voucher.emulator.paths import OPERATIONS, codes_of, operations
from rm_voucher.emulator.routes import Routes
from rm_voucher.emulator.stock import RefusedError

DESCRIPTION = describe(ENDPOINTS, Guesses())
MANY_GUESSES = Guesses(
    get_methods=("GET",),
    older_batch_path=False,
    last_page=LastPage.NULL,
    static_issue_code="VOUCHER_STATIC",
    redeem_again_code="VOUCHER_REDEEMED_INVALID",
    throttle_status=503,
    void_needs_store=True,
)


@pytest.fixture
def emulator(one_key):
    return Emulator(credentials=ME, batches={"K": 3})


def described(method, path):
    return DESCRIPTION["paths"][path][method]


def fits(wire, schema):
    """Hold an answer against a schema of the description."""
    schema = {**schema, "components": DESCRIPTION["components"]}
    jsonschema.Draft202012Validator(schema).validate(wire)


@pytest.mark.parametrize("guesses", [Guesses(), MANY_GUESSES], ids=["default", "others"])
def test_is_openapi_3_1(guesses):
    document = orjson.loads(orjson.dumps(describe(ENDPOINTS, guesses)))
    assert document["openapi"] == "3.1.0"
    assert not list(OpenAPIV31SpecValidator(document).iter_errors())


def test_is_served_and_kept_as_it_is_made(emulator):
    """The file of the docs, what an emulator serves, and what the tables give are one."""
    answer = control(emulator, "GET", "/_emulator/openapi.json", b"")
    assert answer.status == 200
    served = orjson.loads(answer.body)
    assert served == orjson.loads(orjson.dumps(DESCRIPTION))
    assert served == orjson.loads((DOCS / "openapi.json").read_bytes())


def test_says_whose_description_it_is():
    assert "not Revenue Monster's" in DESCRIPTION["info"]["description"]


def test_follows_the_guesses():
    """An emulator that does otherwise says so."""
    document = describe(ENDPOINTS, MANY_GUESSES)
    assert "/v3/voucher-batch/{key}" not in document["paths"]
    assert list(document["paths"]["/v3/voucher/{code}"]) == ["get"]
    answers = document["paths"]["/v3/voucher-batch/{key}/issue"]["post"]["responses"]
    assert "VOUCHER_STATIC" in answers["400"]["description"]
    assert "503" in answers


def test_every_endpoint_is_in_it():
    """Each row is, and under a merchant where it is about one; the names of all are different."""
    names = []
    for endpoint in ENDPOINTS:
        operation = described(endpoint.method.lower(), f"/_emulator{endpoint.path}")
        assert operation["summary"] == endpoint.summary
        names.append(operation["operationId"])
        of_merchant = DESCRIPTION["paths"].get(f"/_emulator/merchants/{{merchant}}{endpoint.path}")
        assert (of_merchant is None) is endpoint.is_shared
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("operation", operations(Guesses()), ids=lambda each: each.name)
def test_every_operation_is_found_by_its_path(emulator, operation):
    """The path leads to the operation, with its methods; a longer or shorter one doesn't."""
    routes = Routes(emulator.state, Guesses(), (), "1")
    path = [part or "{code}" for part in operation.parts]
    route = routes.find(path)
    assert (route.operation, route.methods) == (operation.name, operation.methods)
    assert route.name == ("{code}" if None in operation.parts else "")
    for wrong in ([*path, "x"], ["x", *path[1:]], [*path[:-1], ""], path[:1]):
        with pytest.raises(RefusedError):
            routes.find(wrong)
    assert set(DESCRIPTION["paths"][operation.path]) == {m.lower() for m in operation.methods}


@pytest.mark.parametrize("guesses", [Guesses(), MANY_GUESSES], ids=["default", "others"])
def test_codes_are_codes(guesses):
    """No name of a guess is left among them, and none is empty."""
    for operation in operations(guesses):
        codes = codes_of(operation, guesses)
        assert codes
        assert all(code and not code.islower() for code in codes)


def test_examples_are_answers_that_fit():
    """Each operation but the token's has one, made by the emulator, of the form that is told."""
    shown = examples(Guesses())
    assert set(shown) == {*OPERATIONS} - {"token"}
    for operation in operations(Guesses()):
        for method in operation.methods:
            answer = described(method.lower(), operation.path)["responses"]["200"]["content"]
            if operation.name in shown:
                wire = orjson.loads(orjson.dumps(shown[operation.name]))
                assert answer["application/json"]["example"] == wire
                fits(wire, answer["application/json"]["schema"])


def test_examples_that_the_guesses_allow():
    """A void that needs a store has none, and what comes after it neither."""
    assert {*OPERATIONS} - set(examples(MANY_GUESSES)) == {
        *("token", "batch", "void", "reinstate"),
    }


def test_token_fits(emulator):
    grant = emulator.authenticator.grant(
        {"authorization": "Basic Y2xpZW50LWlkOmNsaWVudC1zZWNyZXQ="},
        {"grantType": "client_credentials"},
    )
    fits(grant, {"$ref": "#/components/schemas/Token"})


@pytest.mark.parametrize(
    ("row", "wire"),
    [
        ("POST /batches", {"quantity": 1.5}),
        ("POST /batches", {"quantity": -1}),
        ("POST /batches", {"quantity": 1, "amount_sen": 10**10}),
        ("POST /batches", {"quantity": 1, "type": "GOLD"}),
        ("POST /batches", {"codes": [1]}),
        ("PUT /faults", {"rate": 2}),
        ("PUT /faults", {"kinds": []}),
        ("PUT /faults", {"kinds": ["closed"]}),
        ("PUT /faults", {"windows": [{"fault": "closed", "start_s": 0}]}),
        ("PUT /faults", {"windows": [{"fault": "closed", "start_s": 0, "length_s": 0}]}),
        ("POST /fail-next", {"operation": "issue"}),
        ("PUT /callbacks", {"interval_s": 0}),
        ("PUT /callbacks", {"signs_url": 1}),
        ("POST /clock", {"advance_s": -1}),
        ("POST /reset", {"anything": 1}),
    ],
)
def test_what_the_description_refuses_is_refused(emulator, row, wire):
    """What does not fit a body's schema is a 400."""
    method, path = row.split(" ")
    (endpoint,) = [each for each in ENDPOINTS if (each.method, each.path) == (method, path)]
    body = described(method.lower(), f"/_emulator{path}").get("requestBody")
    if body is not None:
        with pytest.raises(jsonschema.ValidationError):
            fits(wire, body["content"]["application/json"]["schema"])
    assert bool(endpoint.fields) is (body is not None)
    assert control(emulator, method, f"/_emulator{path}", orjson.dumps(wire)).status == 400
