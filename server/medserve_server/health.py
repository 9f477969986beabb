"""grpc.health.v1: overall and for each service."""

from collections.abc import Iterable

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio


class Health:
    """What health checks are told. Nothing is SERVING until `set_serving`."""

    def __init__(self, services: Iterable[str]) -> None:
        self.servicer = health_aio.HealthServicer()
        self._services = ("", *services)

    async def set_serving(self, serving: bool) -> None:
        """Tells the state of the server and of each of its services."""
        states = health_pb2.HealthCheckResponse
        for service in self._services:
            await self.servicer.set(service, states.SERVING if serving else states.NOT_SERVING)
