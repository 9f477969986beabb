"""Inconsistent settings of TLS and access, and warnings about listeners without them."""

from pathlib import Path

import pytest

from medserve_server.config import Settings, SettingsError
from medserve_server.process.exposure import check_exposure

FILE = Path("file.pem")
ENCRYPTED = {"tls_certificate": FILE, "tls_key": FILE}


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"tls_certificate": FILE}, "given together"),
        ({"tls_key": FILE}, "given together"),
        ({"tls_client_ca": FILE}, "--tls-client-ca needs --tls-certificate and --tls-key"),
        ({"require_auth": True}, "--require-auth needs --tokens or --tls-client-ca"),
        (ENCRYPTED | {"require_auth": True}, "--require-auth needs --tokens or --tls-client-ca"),
    ],
)
def test_inconsistent_settings_are_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        check_exposure(Settings.model_validate(settings))


@pytest.mark.parametrize(
    ("settings", "warnings"),
    [
        ({"host": "0.0.0.0"}, ["NO AUTHENTICATION", "NO ENCRYPTION"]),
        ({"host": "::"}, ["NO AUTHENTICATION", "NO ENCRYPTION"]),
        ({"host": "hospital.example"}, ["NO AUTHENTICATION", "NO ENCRYPTION"]),
        ({"host": "0.0.0.0", "tokens": FILE}, ["NO ENCRYPTION"]),
        (ENCRYPTED | {"host": "0.0.0.0"}, ["NO AUTHENTICATION"]),
        (ENCRYPTED | {"host": "0.0.0.0", "tls_client_ca": FILE}, []),
        (ENCRYPTED | {"host": "0.0.0.0", "tokens": FILE, "require_auth": True}, []),
        ({"host": "127.0.0.1"}, []),
        ({"host": "::1"}, []),
        ({"host": "localhost"}, []),
        ({}, []),
    ],
)
def test_public_address_without_protection_causes_a_warning(
    settings: dict[str, object], warnings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    check_exposure(Settings.model_validate(settings))
    assert [message.partition(":")[0] for message in caplog.messages] == warnings
