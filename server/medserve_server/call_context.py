"""The type of the context that gRPC method handlers receive."""

from typing import TYPE_CHECKING, Any

from grpc import aio

if TYPE_CHECKING:  # generic only for the type checker
    Context = aio.ServicerContext[Any, Any]
else:
    Context = aio.ServicerContext
