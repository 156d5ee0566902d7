"""Keep orders in SQLAlchemy's ORM, and issue each its voucher exactly once.

Two ways to the same tables: the application's own `AsyncSession`, and `tx` in a callback's handler,
whose writes commit together with "this event is done".
Needs the extra ``sql``, and aiosqlite or the extra ``postgres``.
"""

from sqlalchemy import Connection, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from rm_voucher import VoucherClient, VoucherStatus
from rm_voucher.database import Transaction
from rm_voucher.ledger import Ledger
from rm_voucher.webhooks import VoucherEvent, WebhookRouter

Sessions = async_sessionmaker[AsyncSession]


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str | None] = mapped_column(unique=True)
    is_used: Mapped[bool] = mapped_column(default=False)


async def place(sessions: Sessions) -> int:
    async with sessions.begin() as session:  # committed before anything is issued
        session.add(order := Order())
        await session.flush()
        return order.id  # before the commit, after which it would be read again


async def issue(
    order_id: int, batch_key: str, client: VoucherClient, ledger: Ledger, sessions: Sessions
) -> None:
    # No transaction is open meanwhile. After a crash at any place, call it again: the ledger gives
    # the order the code that it has.
    voucher = await ledger.issue(client, batch_key, f"order {order_id}")
    async with sessions.begin() as session:
        order = await session.get_one(Order, order_id)
        order.code = voucher.code


async def without_code(sessions: Sessions) -> list[int]:
    """Return the orders for which `issue` is to be called, at the start of the application."""
    async with sessions() as session:
        return list(await session.scalars(select(Order.id).where(Order.code.is_(None))))


def add_handlers(router: WebhookRouter) -> None:
    @router.on(VoucherStatus.VOID)
    async def used(event: VoucherEvent, tx: Transaction) -> None:
        def work(connection: Connection) -> None:  # in a thread, so it is no AsyncSession
            with Session(connection) as session:
                order = session.scalars(select(Order).where(Order.code == event.code)).one()
                order.is_used = True
                session.flush()  # and no commit: it is committed with "this event is done"

        await tx.run(work)
