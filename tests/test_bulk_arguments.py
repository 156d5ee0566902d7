"""What `bulk_issue` is given by mistake is refused before anybody has a voucher."""

import pytest
from conftest import ScriptedServer

from rm_voucher import ConfigurationError, bulk_issue


@pytest.mark.parametrize("ledger", ["sqlite:///a.db", 0, {}])
def test_bulk_the_url_of_a_ledger_is_none(make_client, ledger):
    """A run with it would not end."""
    with pytest.raises(ConfigurationError, match="ledger must be of type Ledger"):
        bulk_issue(make_client(ScriptedServer([])), "KEY", [1], ledger=ledger)
