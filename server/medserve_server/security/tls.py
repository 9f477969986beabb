"""Server TLS certificates, which are reloaded when their files change."""

import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from medserve_server.config import Settings
from medserve_server.file_reloader import FileReloader


@dataclass(frozen=True, slots=True)
class Certificates:
    """The contents of PEM files, validated to match each other."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    """CA certificates for verifying client certificates; None if client certificates are not required."""


def read_certificates(settings: Settings) -> FileReloader[Certificates] | None:
    """Returns the server certificates, reloaded when they change; None for plaintext.

    If certificate and key do not match, because only one of them has been replaced, they are not reloaded.

    Raises:
        SettingsError: a file cannot be read, is not a valid PEM file, or the key does not match the certificate.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    files = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    return FileReloader(partial(_read, *files), *(file for file in files if file is not None))


def _read(certificate: Path, key: Path, client_ca: Path | None) -> Certificates:
    read = Certificates(
        certificate.read_bytes(), key.read_bytes(), client_ca.read_bytes() if client_ca is not None else None
    )
    _context(certificate, key, client_ca)  # validates them: gRPC and Envoy accept any bytes and fail at handshakes
    return read


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """Returns the TLS context of the HTTP port; None for plaintext.

    Each new connection uses the current certificates, reloaded shortly after their files change.

    Raises:
        SettingsError: a file cannot be read, is not a valid PEM file, or the key does not match the certificate.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    files = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    contexts = FileReloader(partial(_context, *files), *(file for file in files if file is not None))
    listening = contexts.current()

    def use_current(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        connection.context = contexts.current()

    # OpenSSL calls this at each handshake, even if the client sends no server name.
    listening.sni_callback = use_current
    return listening


def _context(certificate: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_refuse_password)
    except ssl.SSLError as error:
        raise ValueError(f"--tls-certificate {certificate} and --tls-key {key}: {_reason(error)}") from error
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except ssl.SSLError as error:
            raise ValueError(f"--tls-client-ca {client_ca}: {_reason(error)}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _reason(error: ssl.SSLError) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "the key does not match the certificate"
    return f"not a valid PEM file ({error.reason or error})"


def _refuse_password() -> str:
    raise ValueError("--tls-key: the key is encrypted; store it without a password, readable only by the server")
