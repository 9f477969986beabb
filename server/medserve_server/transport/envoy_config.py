"""The configuration of Envoy: one listener, its limits, and the ASGI application at the end of the filters.

https://www.envoyproxy.io/docs/envoy/v1.39.0/api-v3/api
"""

import json
from pathlib import Path
from typing import Any

from medserve_server.config import Settings
from medserve_server.worker_order import EnvoyFiles

APPLICATION = "medserve_server.transport.envoy_worker:application"

MAX_HEADERS_KIB = 32
MAX_HEADERS = 100
HEADERS_SECONDS = 10
"""Time in which the headers of a request have to arrive, and a TLS handshake has to end."""
STREAM_WINDOW_BYTES = 1024 * 1024
"""What a client may send of one request before the application takes it."""
CONNECTION_WINDOW_BYTES = 4 * 1024 * 1024
BUFFER_BYTES = 1024 * 1024

Config = dict[str, Any]

_EXTENSIONS = "type.googleapis.com/envoy.extensions."


def envoy_config(settings: Settings, host: str, module: Path, files: EnvoyFiles) -> Config:
    """Returns the bootstrap configuration.

    Args:
        settings: Port, limits, TLS and log format.
        host: Address to listen on, as a number.
        module: Shared library of pyvoy.
        files: Where the socket of the admin interface is made, and where the secrets lie.
    """
    secrets = files if settings.tls_certificate is not None else None
    return {
        "node": {"id": "medserve", "cluster": "medserve"},
        "admin": {"address": {"pipe": {"path": str(files.admin), "mode": 0o600}}},
        "application_log_config": {"log_format": _log_format(settings)},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_EXTENSIONS}resource_monitors.downstream_connections.v3"
                        ".DownstreamConnectionsConfig",
                        "max_active_downstream_connections": settings.max_connections,
                    },
                }
            ]
        },
        "static_resources": {"listeners": [_listener(settings, host, module, secrets)]},
    }


def pair_secret(certificate: bytes, key: bytes) -> Config:
    """Returns a pair as Envoy reads it from a file, and takes it as a whole or not at all."""
    pair = {"certificate_chain": _inline(certificate), "private_key": _inline(key)}
    return _secret("pair", {"tls_certificate": pair})


def client_ca_secret(client_ca: bytes) -> Config:
    """Returns the authorities of clients as Envoy reads them from a file."""
    return _secret("client_ca", {"validation_context": {"trusted_ca": _inline(client_ca)}})


def _secret(name: str, content: Config) -> Config:
    # Envoy refuses a file with more than one.
    return {"resources": [{"@type": f"{_EXTENSIONS}transport_sockets.tls.v3.Secret", "name": name, **content}]}


def _listener(settings: Settings, host: str, module: Path, secrets: EnvoyFiles | None) -> Config:
    chain: Config = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": _http(settings, module)}]
    }
    if secrets is not None:
        chain["transport_socket"] = _tls(settings, secrets)
        chain["transport_socket_connect_timeout"] = f"{HEADERS_SECONDS}s"
    socket: Config = {"address": host, "port_value": settings.port}
    if host == "::":
        socket["ipv4_compat"] = True
    return {
        "name": "medserve",
        "address": {"socket_address": socket},
        "filter_chains": [chain],
        # The supervisor holds the port, bound alone: only its own workers can share it.
        "enable_reuse_port": True,
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
    }


def _http(settings: Settings, module: Path) -> Config:
    mutual = settings.tls_client_ca is not None
    config: Config = {
        "@type": f"{_EXTENSIONS}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        # What X-Forwarded-For says of the client counts for nothing.
        "use_remote_address": True,
        "skip_xff_append": True,
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        "forward_client_cert_details": "SANITIZE_SET" if mutual else "SANITIZE",
        "normalize_path": True,
        "merge_slashes": False,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "max_request_headers_kb": MAX_HEADERS_KIB,
        "request_headers_timeout": f"{HEADERS_SECONDS}s",
        "stream_idle_timeout": _seconds(settings.max_connection_idle),
        "drain_timeout": "1s",
        "common_http_protocol_options": {
            "idle_timeout": _seconds(settings.max_connection_idle),
            "max_connection_duration": _seconds(settings.max_connection_age),
            "max_headers_count": MAX_HEADERS,
        },
        "http2_protocol_options": {
            "max_concurrent_streams": settings.max_connection_streams,
            "initial_stream_window_size": STREAM_WINDOW_BYTES,
            "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
        },
        "route_config": {"virtual_hosts": [{"name": "medserve", "domains": ["*"]}]},
        "http_filters": [*_filters(settings), _application(module)],
    }
    if mutual:
        config["set_current_client_cert_details"] = {"subject": True, "dns": True, "uri": True}
    return config


def _filters(settings: Settings) -> list[Config]:
    """What a request passes before the application."""
    del settings
    return [
        {
            "name": "envoy.filters.http.grpc_web",
            "typed_config": {"@type": f"{_EXTENSIONS}filters.http.grpc_web.v3.GrpcWeb"},
        }
    ]


def _application(module: Path) -> Config:
    return {
        "name": "application",
        "typed_config": {
            "@type": f"{_EXTENSIONS}filters.http.dynamic_modules.v3.DynamicModuleFilter",
            "dynamic_module_config": {"module": {"local": {"filename": str(module)}}},
            "filter_name": "pyvoy",
            "terminal_filter": True,
            "filter_config": {
                "@type": "type.googleapis.com/google.protobuf.StringValue",
                "value": json.dumps({"app": APPLICATION, "interface": "asgi", "root_path": "", "lifespan": True}),
            },
        },
    }


def _tls(settings: Settings, files: EnvoyFiles) -> Config:
    context: Config = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [_source("pair", files.secrets)],
    }
    mutual = settings.tls_client_ca is not None
    if mutual:
        context["validation_context_sds_secret_config"] = _source("client_ca", files.client_ca)
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_EXTENSIONS}transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": context,
            "require_client_certificate": mutual,
        },
    }


def _source(name: str, file: Path) -> Config:
    # Envoy takes a new file only where it was renamed into its place.
    source = {"path": str(file), "watched_directory": {"path": str(file.parent)}}
    return {"name": name, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}


def _log_format(settings: Settings) -> Config:
    """Envoy's own lines look like those of the application."""
    if settings.log_format == "json":
        return {"json_format": {"time": "%Y-%m-%dT%T.%e%z", "level": "%l", "logger": "envoy.%n", "message": "%j"}}
    return {"text_format": "%Y-%m-%d %T,%e %l envoy.%n: %v"}


def _inline(data: bytes) -> Config:
    return {"inline_string": data.decode("latin-1")}


def _seconds(seconds: float) -> str:
    """A Duration of protobuf; what is longer than ten years lasts ten years."""
    return f"{min(seconds, 315_360_000):.3f}s"
