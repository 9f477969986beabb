"""Paths of the files of one Envoy process."""

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from medserve_server.private_folder import LOCK


@dataclass(frozen=True, slots=True)
class EnvoyFiles:
    """Files of one Envoy process, in the private folder of its supervisor."""

    folder: Path
    number: int

    @property
    def config(self) -> Path:
        """The bootstrap configuration."""
        return self.folder / f"{self.number}.json"

    @property
    def admin(self) -> Path:
        """The Unix socket of the admin interface."""
        return self.folder / f"{self.number}.sock"

    @property
    def secrets(self) -> Path:
        """The server's certificate and private key."""
        return self.folder / f"{self.number}-tls.json"

    @property
    def client_ca(self) -> Path:
        """The CA certificates for client certificates."""
        return self.folder / f"{self.number}-ca.json"

    def remove(self) -> None:
        """Removes the files."""
        for path in (self.config, self.admin, self.secrets, self.client_ca):
            path.unlink(missing_ok=True)

    def remove_orphaned(self) -> None:
        """Removes the files, and the folder if it has no other files; used if the supervisor was killed."""
        self.remove()
        with suppress(OSError):
            if [path.name for path in self.folder.iterdir()] == [LOCK]:
                shutil.rmtree(self.folder)
