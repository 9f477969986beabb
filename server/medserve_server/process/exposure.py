"""Whether who listens where is safe: said loudly at the start, and an error where that was asked for."""

import logging
from ipaddress import ip_address

from medserve_server.config import Settings, SettingsError

log = logging.getLogger(__name__)


def check_exposure(settings: Settings) -> None:
    """Warns of an address that others can reach without a lock on it.

    Raises:
        SettingsError: settings contradict one another, or --require-auth is not met.
    """
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise SettingsError("--tls-certificate and --tls-key go together; one of them is missing")
    encrypted = settings.tls_certificate is not None
    if settings.tls_client_ca is not None and not encrypted:
        raise SettingsError("--tls-client-ca needs --tls-certificate and --tls-key")
    authenticated = settings.tokens is not None or settings.tls_client_ca is not None
    if settings.require_auth and not authenticated:
        raise SettingsError("--require-auth: give --tokens or --tls-client-ca; as it is, anyone may call")
    if _is_loopback(settings.host):
        return
    if not authenticated:
        log.warning(
            "ANYONE who reaches %s may call this server: --tokens or --tls-client-ca asks who they are, and "
            "--host 127.0.0.1 keeps it to this machine (docs/security.md)",
            settings.address,
        )
    if not encrypted:
        log.warning(
            "%s is NOT ENCRYPTED: patients' data%s can be read on the way; --tls-certificate and --tls-key encrypt "
            "(docs/security.md)",
            settings.address,
            " and tokens" if settings.tokens is not None else "",
        )


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address; a name other than localhost counts as reachable."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
