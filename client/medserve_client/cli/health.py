"""`medserve health`."""

from medserve_client.cli import terminal
from medserve_client.cli.exit_codes import ExitCode
from medserve_client.client import Client
from medserve_client.health import HealthStatus


def show_health(client: Client, service: str) -> ExitCode:
    """Prints the status of the server or of one of its services."""
    status = client.health(service)
    terminal.output().print(status.name)
    return ExitCode.OK if status == HealthStatus.SERVING else ExitCode.NO_ANSWER
