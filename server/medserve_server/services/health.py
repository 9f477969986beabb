"""grpc.health.v1: overall and for each service."""

import asyncio
from collections.abc import Iterable

import grpc

from medserve_proto.health import health_pb2 as pb
from medserve_proto.health import health_pb2_grpc
from medserve_server.call_context import Context
from medserve_server.supervise import start_awaited_task


class Health(health_pb2_grpc.HealthServicer):
    """What health checks are told. Nothing is SERVING until `set_serving`.

    Args:
        services: their full names.
        stopping: once set, nobody watches any more.
        max_watchers: calls of Watch at once. It is open to all and lasts, so that it has a bound of its own.
    """

    def __init__(self, services: Iterable[str], stopping: asyncio.Event, max_watchers: int) -> None:
        self._services = ("", *services)
        self._stopping = stopping
        self._free = max_watchers
        self._serving = False
        self._changed = asyncio.Event()  # another one after each change

    async def set_serving(self, serving: bool) -> None:
        """Tells the state of the server and of each of its services, where it is another than before."""
        if serving != self._serving:
            self._serving = serving
            self._changed.set()
            self._changed = asyncio.Event()

    async def Check(self, request: pb.HealthCheckRequest, context: Context) -> pb.HealthCheckResponse:
        """Tells the state of the server, or of one of its services."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service here")
        return self._state()

    async def List(self, request: pb.HealthListRequest, context: Context) -> pb.HealthListResponse:
        """Tells the state of the server and of each of its services.

        These are gRPC services, whose names anyone may know; models are not among them.
        """
        return pb.HealthListResponse(statuses=dict.fromkeys(self._services, self._state()))

    async def Watch(self, request: pb.HealthCheckRequest, context: Context) -> None:  # type: ignore[override]
        """Tells every change, until the client leaves or the server stops: a watcher must not hold it up."""
        if self._free == 0:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many are watching already; Check instead")
        self._free -= 1
        watching = start_awaited_task("health", self._follow, request.service, context)
        stopping = start_awaited_task("health", self._stopping.wait)
        try:
            await asyncio.wait((watching, stopping), return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and not watching.cancelled() and watching.exception() is not None:
                await context.abort(grpc.StatusCode.INTERNAL, "the server failed; its log says why")
        finally:
            watching.cancel()
            stopping.cancel()
            self._free += 1

    async def _follow(self, service: str, context: Context) -> None:
        """Tells the state now and after each change, without end."""
        states = pb.HealthCheckResponse
        while True:
            changed = self._changed
            known = service in self._services
            await context.write(self._state() if known else states(status=states.SERVICE_UNKNOWN))
            await changed.wait()

    def _state(self) -> pb.HealthCheckResponse:
        states = pb.HealthCheckResponse
        return states(status=states.SERVING if self._serving else states.NOT_SERVING)
