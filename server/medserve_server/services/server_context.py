"""State shared by the services of one server."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from medserve_server.config import Settings
from medserve_server.errors import ServingError
from medserve_server.inputs.decoders import Decoders
from medserve_server.registry.control import ModelControl
from medserve_server.registry.registry import ModelRegistry
from medserve_server.supervise import Pool


@dataclass(frozen=True, slots=True)
class ServerContext:
    """The parts of a server that its services use."""

    models: ModelRegistry
    settings: Settings
    stopping: asyncio.Event
    """Set once the server is stopping."""
    decoders: Decoders
    refused: Callable[[ServingError], None]
    """Counts an error within a stream."""
    control: ModelControl
    segmenters: Pool
    """Threads that cut images into inputs of segmentation models, and find and measure objects in their outputs."""
