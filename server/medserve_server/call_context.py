"""The context of a call, as the handlers of gRPC methods get it."""

from typing import TYPE_CHECKING, Any

from grpc import aio

if TYPE_CHECKING:  # generic for the type checker alone
    Context = aio.ServicerContext[Any, Any]
else:
    Context = aio.ServicerContext
