"""Envoy's bootstrap configuration: one listener, its limits, and the ASGI application as terminal filter.

https://www.envoyproxy.io/docs/envoy/v1.39.0/api-v3/api
"""

import base64
import json
import resource
from pathlib import Path
from typing import Any

from google.rpc import code_pb2, error_details_pb2, status_pb2

from medserve_server.config import Settings
from medserve_server.rest.answer import long_error, short_error
from medserve_server.transport.envoy.files import EnvoyFiles
from medserve_server.transport.grpc_adapter import SENT_CONTENT_TYPE

APPLICATION = "medserve_server.process.envoy_worker:application"

MAX_HEADERS_KIB = 32
MAX_HEADERS = 100
HEADERS_SECONDS = 30
"""Time in which request headers have to arrive and a TLS handshake has to complete."""
STREAM_WINDOW_BYTES = 1024 * 1024
"""Flow-control window of a stream: data that a client may send before the application reads it."""
CONNECTION_WINDOW_BYTES = 4 * 1024 * 1024
BUFFER_BYTES = 1024 * 1024
WINDOW_UPDATES = 16_384
"""WINDOW_UPDATE frames accepted for each DATA frame that is sent.

gRPC clients may send one for each message that they receive, and one DATA frame may contain up to `SMALL_BYTES` of
messages. With Envoy's default of 10, this counts as a flood and Envoy closes the connection."""

SPARE_REQUESTS = 64
"""Requests that Envoy admits beyond --max-pending-requests, since some of them have been answered already."""
MIN_REQUESTS = 256
"""Number of concurrent requests that Envoy always admits."""
LATENCY = "0.1s"
"""Target for the 90th percentile of the latency while more than `MIN_REQUESTS` requests are in progress."""
SPARE_DESCRIPTORS = 96
"""File descriptors reserved for purposes other than connections: models, sockets, pipes, certificates."""
EXEMPT = (
    "/grpc.health.",
    "/grpc.reflection.",
    "/medserve.v1.ModelCatalog/ListModels",
    "/livez",
    "/readyz",
    "/v2/health/",
)
"""Path prefixes that are exempt from load shedding."""

Config = dict[str, Any]

_EXTENSIONS = "type.googleapis.com/envoy.extensions."


def envoy_config(settings: Settings, host: str, module: Path, files: EnvoyFiles) -> Config:
    """Returns the bootstrap configuration.

    Args:
        settings: port, limits, TLS and log format.
        host: IP address to listen on.
        module: shared library of pyvoy.
        files: paths of the admin interface's socket and of the secrets.
    """
    secrets = files if settings.tls_certificate is not None else None
    return {
        "node": {"id": "medserve", "cluster": "medserve"},
        "admin": {
            "address": {"pipe": {"path": str(files.admin), "mode": 0o600}},
            "ignore_global_conn_limit": True,
        },
        "application_log_config": {"log_format": _log_format(settings)},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_EXTENSIONS}resource_monitors.downstream_connections.v3"
                        ".DownstreamConnectionsConfig",
                        "max_active_downstream_connections": _max_connections(settings),
                    },
                }
            ]
        },
        "static_resources": {"listeners": [_listener(settings, host, module, secrets)]},
    }


def pair_secret(certificate: bytes, key: bytes) -> Config:
    """Returns the secret with certificate and key, in one file so that Envoy replaces both atomically."""
    pair = {"certificate_chain": _inline(certificate), "private_key": _inline(key)}
    return _secret("pair", {"tls_certificate": pair})


def client_ca_secret(client_ca: bytes) -> Config:
    """Returns the secret with the CA certificates for client certificates."""
    return _secret("client_ca", {"validation_context": {"trusted_ca": _inline(client_ca)}})


def _secret(name: str, content: Config) -> Config:
    # Envoy rejects a file with more than one secret.
    return {"resources": [{"@type": f"{_EXTENSIONS}transport_sockets.tls.v3.Secret", "name": name, **content}]}


def _max_connections(settings: Settings) -> int:
    """Returns the maximum number of connections: --max-connections, or fewer if file descriptors are limited.

    If it ran out of descriptors, Envoy would busy-wait to accept the next connection.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return settings.max_connections
    return max(1, min(settings.max_connections, descriptors - SPARE_DESCRIPTORS))


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
        "listener_filters": _listener_filters(secrets),
        "listener_filters_timeout": _seconds(min(HEADERS_SECONDS, settings.max_connection_idle)),
        "filter_chains": [chain],
        # The supervisor has bound the port exclusively, so that only its own workers can share it.
        "enable_reuse_port": True,
        "per_connection_buffer_limit_bytes": BUFFER_BYTES,
    }


def _listener_filters(secrets: EnvoyFiles | None) -> list[Config]:
    """Returns the filter that detects HTTP/2 on connections without TLS, which have no ALPN.

    Without it, Envoy decides by the first bytes received: if they are fewer than the HTTP/2 connection preface, it
    assumes HTTP/1.1.
    """
    if secrets is not None:
        return []
    inspector = {"@type": f"{_EXTENSIONS}filters.listener.http_inspector.v3.HttpInspector"}
    return [{"name": "envoy.filters.listener.http_inspector", "typed_config": inspector}]


def _http(settings: Settings, module: Path) -> Config:
    return {
        "@type": f"{_EXTENSIONS}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        # X-Forwarded-For is not trusted: the client's address is that of the connection.
        "use_remote_address": True,
        "skip_xff_append": True,
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        # The application reads the client certificate from the connection; a header with one is removed.
        "forward_client_cert_details": "SANITIZE",
        "normalize_path": True,
        "merge_slashes": False,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "max_request_headers_kb": MAX_HEADERS_KIB,
        "request_headers_timeout": f"{HEADERS_SECONDS}s",
        "stream_idle_timeout": _seconds(settings.max_connection_idle),
        "drain_timeout": "1s",
        "local_reply_config": _local_replies(),
        "common_http_protocol_options": {
            "idle_timeout": _seconds(settings.max_connection_idle),
            "max_connection_duration": _seconds(settings.max_connection_age),
            "max_headers_count": MAX_HEADERS,
        },
        # nginx uses HTTP/1.0 for upstream servers by default.
        "http_protocol_options": {"accept_http_10": True, "default_host_for_http_10": "medserve"},
        "http2_protocol_options": {
            "max_concurrent_streams": settings.max_connection_streams,
            "initial_stream_window_size": STREAM_WINDOW_BYTES,
            "initial_connection_window_size": CONNECTION_WINDOW_BYTES,
            "max_inbound_window_update_frames_per_data_frame_sent": WINDOW_UPDATES,
        },
        "route_config": {"virtual_hosts": [{"name": "medserve", "domains": ["*"]}]},
        "http_filters": [*_filters(settings), _application(module)],
    }


def _filters(settings: Settings) -> list[Config]:
    """Returns the HTTP filters ahead of the application."""
    grpc_web = {"@type": f"{_EXTENSIONS}filters.http.grpc_web.v3.GrpcWeb"}
    return [
        _sent_content_type(),
        {"name": "envoy.filters.http.grpc_web", "typed_config": grpc_web},
        _ascii_paths(),
        _concurrency_limit(settings),
    ]


def _sent_content_type() -> Config:
    """Copies the Content-Type to `SENT_CONTENT_TYPE`, since the gRPC-Web filter replaces it."""
    header = {"key": SENT_CONTENT_TYPE.decode(), "value": "%REQ(content-type)%"}
    mutation = {"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
    return {
        "name": "envoy.filters.http.header_mutation",
        "typed_config": {
            "@type": f"{_EXTENSIONS}filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": [mutation]},
        },
    }


def _concurrency_limit(settings: Settings) -> Config:
    """Sheds load: refuses requests before they reach the application if it is overloaded.

    The filter's controller lowers the limit on concurrent requests while their latency exceeds `LATENCY` and raises it
    otherwise, but never below `MIN_REQUESTS`.
    """
    maximum = settings.max_pending_requests + SPARE_REQUESTS
    controller = {
        "sample_aggregate_percentile": {"value": 90},
        "concurrency_limit_params": {"max_concurrency_limit": maximum, "concurrency_update_interval": "0.1s"},
        # A fixed value: to measure the minimum latency, the filter would admit only few requests for a while.
        "min_rtt_calc_params": {"fixed_value": LATENCY, "min_concurrency": min(MIN_REQUESTS, maximum)},
    }
    concurrency = {
        "@type": f"{_EXTENSIONS}filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
        "gradient_controller_config": controller,
        "concurrency_limit_exceeded_status": {"code": "TooManyRequests"},
    }
    skip = {"@type": f"{_EXTENSIONS}filters.common.matcher.action.v3.SkipFilter"}
    path = {"@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": ":path"}
    matched = {prefix: {"action": {"name": "skip", "typed_config": skip}} for prefix in EXEMPT}
    return {
        "name": "envoy.filters.http.adaptive_concurrency",
        "typed_config": {
            "@type": f"{_EXTENSIONS}common.matching.v3.ExtensionWithMatcher",
            "extension_config": {"name": "envoy.filters.http.adaptive_concurrency", "typed_config": concurrency},
            "xds_matcher": {
                "matcher_tree": {
                    "input": {"name": "path", "typed_config": path},
                    "prefix_match_map": {"map": matched},
                }
            },
        },
    }


def _ascii_paths() -> Config:
    """Refuses paths with percent-encoded non-ASCII bytes: pyvoy never responds if these are not valid UTF-8.

    No path of the server needs them, since model names are ASCII.
    """
    regex = {"safe_regex": {"regex": "[^?]*%[89A-Fa-f].*"}}
    policy = {
        "permissions": [{"header": {"name": ":path", "string_match": regex}}],
        "principals": [{"any": True}],
    }
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": f"{_EXTENSIONS}filters.http.rbac.v3.RBAC",
            "rules": {"action": "DENY", "policies": {"path": policy}},
        },
    }


def _local_replies() -> Config:
    """Returns the configuration of the responses to refused requests, which match those of the application."""
    busy = status_pb2.Status(
        code=code_pb2.RESOURCE_EXHAUSTED, message="too many calls are being answered already; try again later"
    )
    busy.details.add().Pack(error_details_pb2.ErrorInfo(reason="CALLS", domain="medserve"))
    path = status_pb2.Status(code=code_pb2.NOT_FOUND, message="the path has a percent-encoded byte that is not ASCII")
    return {"mappers": [*_mappers(429, 429, busy), *_mappers(403, 404, path)]}


def _mappers(refused: int, sent: int, status: status_pb2.Status) -> list[Config]:
    """Maps Envoy's refusals with one HTTP status to errors of gRPC and of both REST APIs.

    Args:
        refused: HTTP status that Envoy sets.
        sent: HTTP status that the client receives.
        status: gRPC status that the client receives.
    """
    comparison = {"op": "EQ", "value": {"default_value": refused, "runtime_key": f"medserve.{refused}"}}
    status_filter: Config = {"status_code_filter": {"comparison": comparison}}
    grpc = _header("content-type", {"prefix": "application/grpc"})
    open_inference = _header(":path", {"prefix": "/v2"})
    details = base64.b64encode(status.SerializeToString()).decode()
    headers = {"grpc-status": str(status.code), "grpc-status-details-bin": details}
    return [
        {
            "filter": {"and_filter": {"filters": [status_filter, grpc]}},
            "body": {"inline_string": status.message},
            "headers_to_add": [{"header": {"key": key, "value": value}} for key, value in headers.items()],
        },
        {
            "filter": {"and_filter": {"filters": [status_filter, open_inference]}},
            "status_code": sent,
            "body_format_override": _json(short_error(sent, status)),
        },
        {"filter": status_filter, "status_code": sent, "body_format_override": _json(long_error(sent, status))},
    ]


def _header(name: str, match: Config) -> Config:
    return {"header_filter": {"header": {"name": name, "string_match": match}}}


def _json(body: bytes) -> Config:
    return {"text_format_source": {"inline_string": body.decode()}, "content_type": "application/json"}


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
        "tls_certificate_sds_secret_configs": [_secret_source("pair", files.secrets)],
    }
    mutual = settings.tls_client_ca is not None
    if mutual:
        context["validation_context_sds_secret_config"] = _secret_source("client_ca", files.client_ca)
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_EXTENSIONS}transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": context,
            "require_client_certificate": mutual,
        },
    }


def _secret_source(name: str, file: Path) -> Config:
    # Envoy reloads a file only when another file is renamed to its path.
    source = {"path": str(file), "watched_directory": {"path": str(file.parent)}}
    return {"name": name, "sds_config": {"path_config_source": source, "resource_api_version": "V3"}}


def _log_format(settings: Settings) -> Config:
    """Returns the format of Envoy's log lines, which matches that of the application."""
    if settings.log_format == "json":
        return {"json_format": {"time": "%Y-%m-%dT%T.%e%z", "level": "%l", "logger": "envoy.%n", "message": "%j"}}
    return {"text_format": "%Y-%m-%d %T,%e %l envoy.%n: %v"}


def _inline(data: bytes) -> Config:
    return {"inline_string": data.decode("latin-1")}


def _seconds(seconds: float) -> str:
    """Returns a protobuf Duration as JSON, limited to ten years."""
    return f"{min(seconds, 315_360_000):.3f}s"
