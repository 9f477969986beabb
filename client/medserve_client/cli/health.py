"""`medserve health`: prints the health status of the server."""

from medserve_client.cli import terminal
from medserve_client.cli.exit_codes import ExitCode
from medserve_client.client import Client
from medserve_client.errors import NotFoundError
from medserve_client.health import HealthStatus


def show_health(client: Client, service: str) -> ExitCode:
    """Prints the health status of the server or of one of its services."""
    try:
        status = client.health(service)
    except NotFoundError as error:  # the health service sends no message
        raise NotFoundError(error.code, f"the server has no service {service}") from error
    terminal.output().print(status.name)
    return ExitCode.OK if status == HealthStatus.SERVING else ExitCode.NO_ANSWER
