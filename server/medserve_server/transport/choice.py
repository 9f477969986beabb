"""Which transport serves, where the settings leave that open."""

import logging

from medserve_server.config import Settings, SettingsError
from medserve_server.transport.envoy.process import EnvoyUnavailable, check_envoy

log = logging.getLogger(__name__)


def choose_transport(settings: Settings) -> Settings:
    """Returns the settings with a transport that can serve here; says so where it is not the one with Envoy.

    Raises:
        SettingsError: Envoy was asked for and can't run.
    """
    if settings.transport not in {"auto", "envoy"}:
        return settings
    try:
        check_envoy()
    except EnvoyUnavailable as error:
        if settings.transport == "envoy":
            raise SettingsError(f"--transport envoy: {error}") from None
        log.warning("--transport auto takes grpcio, which is slower and has no gRPC-Web: %s", error)
        return settings.model_copy(update={"transport": "grpcio"})
    return settings.model_copy(update={"transport": "envoy"})
