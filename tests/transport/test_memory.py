"""The in-memory transport: a handler is the server."""

import pytest
from yarl import URL

from rm_voucher import ConnectError, Request, Response
from rm_voucher.transport.memory import MemoryTransport

REQUEST = Request(operation="get", method="GET", url=URL("https://memory.invalid/"))


async def test_handler_may_be_a_coroutine_function():
    """An async handler answers as a plain one does."""

    async def handler(request):
        return Response(status=201, body=request.method.encode())

    response = await MemoryTransport(handler).send(REQUEST)
    assert (response.status, response.body) == (201, b"GET")


@pytest.mark.parametrize("error", [ConnectError("x"), ZeroDivisionError(), TimeoutError()])
@pytest.mark.parametrize("is_async", [False, True])
async def test_handler_raises_as_it_is(error, is_async):
    """A handler plays a fault by raising it; its own bugs are not hidden behind one."""

    def plain(request):
        raise error

    async def coroutine(request):
        raise error

    with pytest.raises(type(error)) as caught:
        await MemoryTransport(coroutine if is_async else plain).send(REQUEST)
    assert caught.value is error
