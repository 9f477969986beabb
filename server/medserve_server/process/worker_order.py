"""The configuration that the supervisor sends to a worker."""

from dataclasses import dataclass

from medserve_server.config import Settings
from medserve_server.transport.envoy.files import EnvoyFiles

DESCRIPTORS = "_MEDSERVE_WORKER"
"""Environment variable with the file descriptors of the worker's ends of its two pipes."""


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """Configuration of a worker."""

    settings: Settings
    supervisor: int
    """Process id of the supervisor."""
    envoy: EnvoyFiles | None
    """Files of the Envoy process that embeds the worker; None with another transport."""
