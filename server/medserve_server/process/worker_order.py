"""What the supervisor tells a worker."""

from dataclasses import dataclass

from medserve_server.config import Settings
from medserve_server.transport.envoy.files import EnvoyFiles

DESCRIPTORS = "_MEDSERVE_WORKER"
"""Environment variable with the numbers of the worker's ends of its two pipes."""


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """All that a worker has to know."""

    settings: Settings
    supervisor: int
    """Process id."""
    envoy: EnvoyFiles | None
    """Where the worker runs in Envoy."""
