"""The application that Envoy's interpreter imports: a worker, as ASGI."""

import asyncio
import os
import signal

from medserve_server.http.asgi import Receive, Scope, Send
from medserve_server.process.worker import Worker
from medserve_server.supervise import report, start_awaited_task

_worker = Worker()
_server = _worker.make_server()


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers requests, and runs the worker for as long as Envoy runs."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
    elif _server is not None:
        await _server.application(scope, receive, send)


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    started = asyncio.Event()
    running = start_awaited_task("worker", _run, started)
    if _worker.order.settings.workers > 1:
        # Envoy listens once this is over. With one worker, it answers health checks while models are loaded; with
        # several, callers are better off with the others.
        await started.wait()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    if _server is not None:
        _server.stop()  # someone else ended Envoy
    await asyncio.wait((running,))
    await send({"type": "lifespan.shutdown.complete"})


async def _run(started: asyncio.Event) -> None:
    """Serves to the end, then ends Envoy."""
    status = 1
    try:
        if _server is not None:
            status = await _worker.run(_server, started.set)
    except Exception as error:  # noqa: BLE001 - reported; the supervisor goes on
        report("worker", error)
    finally:
        if status == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            os._exit(1)
