"""The ASGI application that the Python interpreter inside Envoy imports: a worker."""

import asyncio
import os
import signal

from medserve_server.http.asgi import Receive, Scope, Send
from medserve_server.process.worker import Worker
from medserve_server.supervise import report, start_awaited_task

_worker = Worker()
_server = _worker.make_server()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Handles requests and, in its lifespan, runs the worker as long as Envoy runs."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
    elif _server is not None:
        await _server.application(scope, receive, send)


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    started = asyncio.Event()
    running = start_awaited_task("worker", _run, started)
    if _worker.order.settings.workers > 1:
        # Envoy listens once startup is complete. A single worker listens before its models are loaded, to answer health
        # checks; one of several waits, so that clients reach the workers that are ready.
        await started.wait()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    if _server is not None:
        _server.stop()  # Envoy was stopped by another process
    await asyncio.wait((running,))
    await send({"type": "lifespan.shutdown.complete"})


async def _run(started: asyncio.Event) -> None:
    """Serves until stopped, then terminates Envoy."""
    status = 1
    try:
        if _server is not None:
            status = await _worker.run(_server, started.set)
    except Exception as error:  # noqa: BLE001 - reported; the supervisor starts another worker
        report("worker", error)
    finally:
        if status == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            os._exit(1)
