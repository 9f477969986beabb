"""Health/List always agrees with Check."""

import asyncio
from typing import Any

from medserve_proto.health import health_pb2
from medserve_server.services.health import Health


def test_the_list_follows_every_change() -> None:
    async def states(health: Health) -> tuple[dict[str, int], dict[str, int]]:
        context: Any = None  # not used by either
        listed: Any = await health.List(health_pb2.HealthListRequest(), context)
        checked = {}
        for name in ("", "a.Service", "another.Service"):
            state: Any = await health.Check(health_pb2.HealthCheckRequest(service=name), context)
            checked[name] = state.status
        return {name: state.status for name, state in listed.statuses.items()}, checked

    async def follow() -> None:
        health = Health(["a.Service", "another.Service"], asyncio.Event(), 1)
        for serving in (False, True, True, False):
            await health.set_serving(serving)
            listed, checked = await states(health)
            assert listed == checked
            assert set(listed.values()) == {2 - serving}

    asyncio.run(follow())
