"""Alembic's env.py for a database in which rm_voucher has its tables beside the application's own.

``alembic revision --autogenerate`` then neither drops nor changes those. With DATABASE_URL set;
orm_app.py is the application's own.
"""

import os

from alembic import context
from orm_app import Base
from sqlalchemy import create_engine

from rm_voucher.tables import metadata

OURS = metadata().tables.keys()


def include_name(name: str | None, type_: str, parents: object) -> bool:
    return type_ != "table" or name not in OURS


engine = create_engine(os.environ["DATABASE_URL"])
with engine.connect() as connection:
    context.configure(
        connection=connection, target_metadata=Base.metadata, include_name=include_name
    )
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
