"""grpc.health.v1: overall and for each service."""

import asyncio
from collections.abc import Iterable

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

from medserve_server.supervise import start_awaited_task
from medserve_server.transport.interceptor import Context


class Health(health_aio.HealthServicer):
    """What health checks are told. Nothing is SERVING until `set_serving`.

    Args:
        services: their full names.
        stopping: once set, nobody watches any more.
        max_watchers: calls of Watch at once. It is open to all and lasts, so that it has a bound of its own.
    """

    def __init__(self, services: Iterable[str], stopping: asyncio.Event, max_watchers: int) -> None:
        super().__init__()
        self._free = max_watchers
        self._services = ("", *services)
        self._stopping = stopping
        self._told: bool | None = None

    async def set_serving(self, serving: bool) -> None:
        """Tells the state of the server and of each of its services, where it is another than before."""
        if serving == self._told:
            return
        self._told = serving
        states = health_pb2.HealthCheckResponse
        for service in self._services:
            await self.set(service, states.SERVING if serving else states.NOT_SERVING)

    async def List(self, request: Message, context: Context) -> Message:  # noqa: ARG002, N802 - all of gRPC's
        """Tells the state of the server and of each of its services.

        These are gRPC services, whose names anyone may know; models are not among them.
        """
        states = health_pb2.HealthCheckResponse
        state = states(status=states.SERVING if self._told else states.NOT_SERVING)
        response: Message = health_pb2.HealthListResponse(  # type: ignore[attr-defined]  # newer than its types
            statuses=dict.fromkeys(self._services, state)
        )
        return response

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:  # noqa: N802
        """Tells every change, until the client leaves or the server stops: a watcher must not hold it up."""
        if self._free == 0:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many are watching already; Check instead")
        self._free -= 1
        watching = start_awaited_task("health", super().Watch, request, context)
        stopping = start_awaited_task("health", self._stopping.wait)
        try:
            await asyncio.wait((watching, stopping), return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and not watching.cancelled() and watching.exception() is not None:
                await context.abort(grpc.StatusCode.INTERNAL, "the server failed; its log says why")
        finally:
            watching.cancel()
            stopping.cancel()
            self._free += 1
