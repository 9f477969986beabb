"""The certificates of the port, which may be replaced while the server runs."""

import ssl
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from medserve_server.config import Settings
from medserve_server.file_reloader import FileReloader


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files, checked to fit together."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None
    """Authorities that the certificate of a client must come from; None where no client needs one."""


def read_certificates(settings: Settings) -> FileReloader[Certificates] | None:
    """Returns the certificates, which are read again when they change; None for plain text.

    A pair that does not fit together, one half of it replaced, is not taken.

    Raises:
        SettingsError: a file can't be read, or holds no certificate or key that fits.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    files = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    return FileReloader(partial(_read, *files), *(file for file in files if file is not None))


def _read(certificate: Path, key: Path, client_ca: Path | None) -> Certificates:
    read = Certificates(
        certificate.read_bytes(), key.read_bytes(), client_ca.read_bytes() if client_ca is not None else None
    )
    _context(certificate, key, client_ca)  # gRPC and Envoy would take any bytes, and fail at the handshakes
    return read


def server_context(settings: Settings) -> ssl.SSLContext | None:
    """What the HTTP port proves itself with, and asks of its clients; None where it speaks plain text.

    Every new connection gets the certificates that the files hold then, or held a moment ago.

    Raises:
        SettingsError: a file can't be read, or holds no certificate or key that fits.
    """
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    files = settings.tls_certificate, settings.tls_key, settings.tls_client_ca
    contexts = FileReloader(partial(_context, *files), *(file for file in files if file is not None))
    listening = contexts.current()

    def use_current(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        connection.context = contexts.current()

    # OpenSSL asks at each handshake, whether the client names a server or not.
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
        return "the key is not the certificate's"
    return f"no PEM file that can be used ({error.reason or error})"


def _refuse_password() -> str:
    raise ValueError("--tls-key: the key is encrypted; store it without a password, readable for the server alone")
