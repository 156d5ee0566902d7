"""What `bulk_issue` is given by mistake is refused before anybody has a voucher."""

from typing import Any

import pytest
from support.scripted_server import ScriptedServer

from rm_voucher import ConfigurationError, VoucherClient, bulk_issue


@pytest.mark.parametrize("recipients", ["members.csv", b"members.csv", bytearray(b"a")])
def test_bulk_one_text_is_no_list_of_recipients(make_client, recipients):
    """The letters of a file's name would each get a voucher."""
    with pytest.raises(ConfigurationError, match="recipients must be a list"):
        bulk_issue(make_client(ScriptedServer([])), "KEY", recipients)


@pytest.mark.parametrize("client", [None, "KEY", VoucherClient])
def test_bulk_needs_a_client(client):
    """The class, or what `rm_voucher` does not know, is no client."""
    with pytest.raises(ConfigurationError, match="client must be of type VoucherClient"):
        bulk_issue(client, "KEY", [1])


@pytest.mark.parametrize("name", ["request_id", "on_progress"])
def test_bulk_needs_functions(make_client, name):
    """Found out after the first voucher, it would cost some."""
    options: dict[str, Any] = {name: "id"}
    with pytest.raises(ConfigurationError, match=f"{name} must be a function"):
        bulk_issue(make_client(ScriptedServer([])), "KEY", [1], **options)


def test_bulk_request_id_without_a_ledger(make_client):
    """Nobody keeps the ids, and whoever gives them believes that the run may be repeated."""
    with pytest.raises(ConfigurationError, match="give ledger too"):
        bulk_issue(make_client(ScriptedServer([])), "KEY", [1], request_id=str)


@pytest.mark.parametrize("ledger", ["sqlite:///a.db", 0, {}])
def test_bulk_the_url_of_a_ledger_is_none(make_client, ledger):
    """A run with it would not end."""
    with pytest.raises(ConfigurationError, match="ledger must be of type Ledger"):
        bulk_issue(make_client(ScriptedServer([])), "KEY", [1], ledger=ledger)
