"""The health checking service grpc.health.v1, for the server as a whole and for each service."""

import asyncio
from collections.abc import Iterable

import grpc

from medserve_proto.health import health_pb2 as pb
from medserve_proto.health import health_pb2_grpc
from medserve_server.call_context import Context
from medserve_server.supervise import start_awaited_task


class Health(health_pb2_grpc.HealthServicer):
    """Implements health checks. All services are NOT_SERVING until `set_serving` is called.

    Args:
        services: full names of the services.
        stopping: once set, all calls of Watch are ended.
        max_watchers: maximum number of concurrent calls of Watch, which needs its own limit, since its calls are
            long-lived and require no token.
    """

    def __init__(self, services: Iterable[str], stopping: asyncio.Event, max_watchers: int) -> None:
        self._services = ("", *services)
        self._stopping = stopping
        self._watchers_left = max_watchers
        self._serving = False
        self._changed = asyncio.Event()  # replaced after each change

    async def set_serving(self, serving: bool) -> None:
        """Sets the status of the server and of all its services, and notifies watchers if it changed."""
        if serving != self._serving:
            self._serving = serving
            self._changed.set()
            self._changed = asyncio.Event()

    async def Check(self, request: pb.HealthCheckRequest, context: Context) -> pb.HealthCheckResponse:
        """Returns the status of the server, or of one of its services."""
        if request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return self._state()

    async def List(self, request: pb.HealthListRequest, context: Context) -> pb.HealthListResponse:
        """Returns the status of the server and of each of its services.

        These are gRPC services, whose names are public; the list does not contain models.
        """
        return pb.HealthListResponse(statuses=dict.fromkeys(self._services, self._state()))

    async def Watch(self, request: pb.HealthCheckRequest, context: Context) -> None:  # type: ignore[override]
        """Sends every status change until the client cancels or the server stops; does not delay shutdown."""
        if self._watchers_left == 0:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls of Watch in progress; use Check instead"
            )
        self._watchers_left -= 1
        watching = start_awaited_task("health", self._follow, request.service, context)
        stopping = start_awaited_task("health", self._stopping.wait)
        try:
            await asyncio.wait((watching, stopping), return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and not watching.cancelled() and watching.exception() is not None:
                await context.abort(grpc.StatusCode.INTERNAL, "internal server error; see the server log")
        finally:
            watching.cancel()
            stopping.cancel()
            self._watchers_left += 1

    async def _follow(self, service: str, context: Context) -> None:
        """Sends the current status and every change until cancelled."""
        states = pb.HealthCheckResponse
        while True:
            changed = self._changed
            known = service in self._services
            await context.write(self._state() if known else states(status=states.SERVICE_UNKNOWN))
            await changed.wait()

    def _state(self) -> pb.HealthCheckResponse:
        states = pb.HealthCheckResponse
        return states(status=states.SERVING if self._serving else states.NOT_SERVING)
