"""Selects the transport for --transport auto."""

import logging

from medserve_server.config import Settings, SettingsError
from medserve_server.transport.envoy.process import EnvoyUnavailable, check_envoy

log = logging.getLogger(__name__)


def choose_transport(settings: Settings) -> Settings:
    """Returns the settings with an available transport; logs a warning if `auto` falls back to grpcio.

    Raises:
        SettingsError: --transport envoy was given, but Envoy is unavailable.
    """
    if settings.transport not in {"auto", "envoy"}:
        return settings
    try:
        check_envoy()
    except EnvoyUnavailable as error:
        if settings.transport == "envoy":
            raise SettingsError(f"--transport envoy: {error}") from None
        log.warning("--transport auto falls back to grpcio, which is slower and does not support gRPC-Web: %s", error)
        return settings.model_copy(update={"transport": "grpcio"})
    return settings.model_copy(update={"transport": "envoy"})
