"""Warns at startup about unauthenticated or unencrypted listeners; with --require-auth, refuses to start."""

import logging

from medserve_server.config import Settings, SettingsError

log = logging.getLogger(__name__)


def check_exposure(settings: Settings) -> None:
    """Warns if the server listens on a non-loopback address without authentication or encryption.

    Raises:
        SettingsError: the TLS settings are inconsistent, or --require-auth is not satisfied.
    """
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise SettingsError("--tls-certificate and --tls-key have to be given together; one of them is missing")
    encrypted = settings.tls_certificate is not None
    if settings.tls_client_ca is not None and not encrypted:
        raise SettingsError("--tls-client-ca needs --tls-certificate and --tls-key")
    authenticated = settings.tokens is not None or settings.tls_client_ca is not None
    if settings.require_auth and not authenticated:
        raise SettingsError("--require-auth needs --tokens or --tls-client-ca; neither is given")
    if settings.on_loopback:
        return
    if not authenticated:
        log.warning(
            "NO AUTHENTICATION: anyone who can reach %s may call this server; enable it with --tokens or "
            "--tls-client-ca, or restrict access to this machine with --host 127.0.0.1 (docs/security.md)",
            settings.address,
        )
    if not encrypted:
        log.warning(
            "NO ENCRYPTION: patient data%s sent to and from %s can be read in transit; enable TLS with "
            "--tls-certificate and --tls-key (docs/security.md)",
            " and tokens" if settings.tokens is not None else "",
            settings.address,
        )
