"""What a registry that only reads does when a server wants to register: it says where to write instead."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import NoReturn

from rpcfw.errors import Code, RpcError


class Refused(AbstractAsyncContextManager[None]):
    """A registration that cannot be made. Entering raises RpcError FAILED_PRECONDITION with the message given.

    Attributes:
        message: why, and where to write instead.
    """

    def __init__(self, message: str) -> None:
        self.message = message

    async def __aenter__(self) -> NoReturn:
        raise RpcError(Code.FAILED_PRECONDITION, self.message, executed=False)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing was made."""
