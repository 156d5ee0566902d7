"""rm-voucher db: the SQL of the tables."""

import pytest

from rm_voucher.tables import ddl


@pytest.mark.parametrize(
    ("options", "dialect"), [((), "postgresql"), (("--dialect", "sqlite"), "sqlite")]
)
def test_ddl_is_printed(rm, options, dialect):
    """For PostgreSQL, or for what is asked."""
    ran = rm("db", "ddl", *options)
    assert (ran.code, ran.out, ran.err) == (0, ddl(dialect), "")
