"""What the supervisor tells a worker."""

from dataclasses import dataclass
from pathlib import Path

from medserve_server.config import Settings

DESCRIPTORS = "_MEDSERVE_WORKER"
"""Environment variable with the numbers of the worker's ends of its two pipes."""


@dataclass(frozen=True, slots=True)
class EnvoyFiles:
    """Files of one Envoy, in the private folder of its supervisor."""

    folder: Path
    number: int

    @property
    def config(self) -> Path:
        """The configuration."""
        return self.folder / f"{self.number}.json"

    @property
    def admin(self) -> Path:
        """Socket of the admin interface."""
        return self.folder / f"{self.number}.sock"

    @property
    def secrets(self) -> Path:
        """Certificate and key."""
        return self.folder / f"{self.number}-tls.json"

    def remove(self) -> None:
        """Removes the files, and the folder where it is empty then."""
        for path in (self.config, self.admin, self.secrets):
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class WorkerOrder:
    """All that a worker has to know."""

    settings: Settings
    supervisor: int
    """Process id."""
    envoy: EnvoyFiles | None
    """Where the worker runs in Envoy."""
