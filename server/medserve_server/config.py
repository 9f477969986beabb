"""Settings of the server. `medserve_server.process.flags` reads them from flags, environment and file."""

from ipaddress import ip_address
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator

from medserve_images import ImageLimits
from medserve_server.cpus import available_cpus
from medserve_server.version_policy import VersionPolicy


def host_and_port(host: str, port: int) -> str:
    """Returns `HOST:PORT`, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class SettingsError(Exception):
    """Settings are inconsistent or cannot be applied; the message names them."""


class Settings(BaseModel):
    """All settings of a server. Each field is a flag, an environment variable MEDSERVE_* and a key of the TOML file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: Path | None = Field(default=None, description="TOML file with settings.")

    models: Path = Field(
        default=Path("models"), description="Model repository: a folder of <name>/<version>/model.onnx."
    )
    model_control: Literal["none", "poll", "explicit"] = Field(
        default="none",
        description="When models are loaded and unloaded: at startup only (none), whenever the repository has changed, "
        "checked every --poll-interval (poll), or by --load-model, RepositoryModelLoad and RepositoryModelUnload "
        "(explicit).",
    )
    poll_interval: PositiveFloat = Field(default=5.0, description="Seconds between two polls of the model repository.")
    load_model: tuple[str, ...] = Field(
        default=(), description="Model to load at startup with --model-control explicit; may be repeated."
    )
    version_policy: str = Field(
        default="all",
        description="Versions to serve: all, latest:N, and for individual models NAME=all, NAME=latest:N or NAME=1,3; "
        "separated by spaces.",
    )
    max_model_mib: PositiveInt = Field(default=512, description="Maximum size of a model file, in MiB.")
    require_signed: Path | None = Field(
        default=None,
        description="PEM file with an ed25519 public key: serve only models with a valid signature in model.onnx.sig, "
        "next to the model file.",
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for all interfaces.")
    port: int = Field(default=8001, ge=0, le=65535, description="gRPC port; 0 picks a free port.")
    metrics_port: int = Field(
        default=8002, ge=0, le=65535, description="Port of the Prometheus endpoint /metrics; 0 picks a free port."
    )

    http_port: int = Field(
        default=8000, ge=0, le=65535, description="REST port with --transport grpcio; 0 picks a free port."
    )

    cors_origin: tuple[str, ...] = Field(
        default=(),
        description="Origin whose pages may call the server from a browser, e.g. https://viewer.example.org, or * for "
        "any origin; may be repeated.",
    )

    web: bool | None = Field(
        default=None,
        description="Serve the web page on the port of REST; by default if --host is a loopback address (docs/web.md).",
    )

    transport: Literal["auto", "envoy", "grpcio"] = Field(
        default="auto",
        description="Transport: envoy (gRPC, gRPC-Web and REST on --port; requires the extra envoy) or grpcio (gRPC on "
        "--port, REST on --http-port); auto uses envoy if it is available.",
    )

    workers: PositiveInt = Field(
        default=1, description="Worker processes that share the port; each gets an equal share of the CPUs."
    )

    provider: Literal["auto", "tensorrt", "cuda", "openvino", "cpu"] = Field(
        default="auto", description="ONNX Runtime execution provider; auto uses the first of these that is available."
    )
    max_deviation: PositiveFloat = Field(
        default=0.005,
        description="Maximum deviation of a provider's probabilities from those of the manifest's reference rows.",
    )
    allow_fallback: bool = Field(
        default=False, description="Fall back to the CPU, with a warning, if the provider is unavailable."
    )
    threads: PositiveInt | None = Field(
        default=None,
        description="Threads per inference; by default the available CPUs, or one for a small model.",
    )
    cuda_device: int = Field(default=0, ge=0, description="Index of the GPU.")
    cuda_memory_limit_mib: PositiveInt | None = Field(
        default=None, description="Maximum GPU memory of a model's arena, in MiB; unlimited by default."
    )

    max_batch_rows: PositiveInt = Field(
        default=64, description="Maximum rows of several requests that are joined into one batch."
    )
    max_pending_requests: PositiveInt = Field(
        default=1024,
        description="Maximum requests queued for a model; further ones are refused with RESOURCE_EXHAUSTED.",
    )
    max_run_seconds: PositiveFloat = Field(
        default=30.0,
        description="Maximum duration of one model run, in seconds; then the run is terminated or the model suspended.",
    )
    max_batch_delay_ms: float = Field(
        default=0.0,
        ge=0,
        description="Maximum time in milliseconds that a request waits for its batch to fill; 0 disables waiting.",
    )
    max_request_rows: PositiveInt = Field(default=4096, description="Maximum images, patients or rows of one request.")
    max_connection_streams: PositiveInt = Field(
        default=256, description="Maximum concurrent calls on one connection; clients queue further calls."
    )
    max_message_mib: PositiveInt = Field(
        default=64, description="Maximum size of a gRPC message in either direction, in MiB."
    )
    max_image_megapixels: PositiveFloat = Field(
        default=ImageLimits().max_pixels / 1e6,
        description="Maximum size of an encoded image, in megapixels; checked before decoding.",
    )

    # TLS, authentication and authorization (docs/security.md).
    tls_certificate: Path | None = Field(
        default=None, description="PEM file with the server's certificate chain; reloaded when it changes."
    )
    tls_key: Path | None = Field(default=None, description="PEM file with the certificate's private key.")
    tls_client_ca: Path | None = Field(
        default=None,
        description="PEM file with the CA certificates that clients' certificates are verified against (mutual TLS).",
    )
    tokens: Path | None = Field(
        default=None,
        description="File with clients, scopes and hashed tokens, one line each as printed by medserve-server token.",
    )
    require_auth: bool = Field(default=False, description="Refuse to start without --tokens or --tls-client-ca.")
    metrics_token_file: Path | None = Field(
        default=None, description="File with the token required for /metrics; by default none is required."
    )

    # Limits per client, connection and request.
    max_client_calls: PositiveInt = Field(
        default=512,
        description="Maximum concurrent calls per client, identified by token, certificate or address, in this order.",
    )
    max_client_rate: PositiveFloat | None = Field(
        default=None, description="Maximum requests per second per client; unlimited by default."
    )
    max_connections: PositiveInt = Field(
        default=500, description="Maximum open connections; further ones are closed immediately."
    )
    max_connection_age: PositiveFloat = Field(
        default=3600.0, description="Seconds until a connection accepts no new calls; after as many more it is closed."
    )
    max_connection_idle: PositiveFloat = Field(
        default=900.0, description="Seconds after which an idle connection is closed."
    )
    min_ping_interval: PositiveFloat = Field(
        default=300.0, description="Minimum seconds between two pings of a client; two early pings are tolerated."
    )
    max_name_length: PositiveInt = Field(
        default=256, description="Maximum length of a model name, a model version and a request id, in characters."
    )
    max_patient_features: PositiveInt = Field(default=256, description="Maximum number of values for one patient.")
    max_image_ratio: PositiveFloat = Field(
        default=ImageLimits().max_ratio,
        description="Maximum pixels per byte of an encoded image larger than one megapixel.",
    )

    drain_delay: float = Field(
        default=0.0,
        ge=0,
        description="Seconds after SIGTERM during which health reports NOT_SERVING and new calls are still accepted.",
    )
    grace: float = Field(default=30.0, ge=0, description="Seconds after the drain delay for accepted calls to finish.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Minimum level of log records."
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="Format of the log; with json, all output is log records.",
    )
    access_log: bool = Field(default=False, description="Log every completed call (docs/observability.md).")
    otlp_endpoint: str | None = Field(
        default=None,
        description="OpenTelemetry collector that receives traces over OTLP/gRPC, as http://HOST:4317 or https://; "
        "requires the extra otel. Defaults to OTEL_EXPORTER_OTLP_ENDPOINT.",
    )

    @property
    def address(self) -> str:
        """Host and gRPC port, with an IPv6 address in brackets."""
        return host_and_port(self.host, self.port)

    @property
    def serves_http_port(self) -> bool:
        """Whether REST is served on its own port."""
        return self.transport in {"auto", "grpcio"}

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the host; any name but localhost counts as reachable by others."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def serves_web(self) -> bool:
        """Whether the web page is served."""
        return self.on_loopback if self.web is None else self.web

    @property
    def cpus(self) -> int:
        """CPUs available to one worker."""
        return max(1, available_cpus() // self.workers)

    @property
    def stream_window(self) -> int:
        """Maximum concurrent requests of one stream: enough to fill a batch, but not the queue."""
        return min(self.max_batch_rows, self.max_pending_requests)

    @field_validator("version_policy")
    @classmethod
    def _check_version_policy(cls, text: str) -> str:
        VersionPolicy.parse(text)
        return text

    @field_validator("otlp_endpoint")
    @classmethod
    def _check_otlp_endpoint(cls, text: str | None) -> str | None:
        # The exporter uses only host and port; a password in the URL would become part of the host.
        problem = ValueError("is not the address of a collector, expected http://HOST:PORT or https://HOST:PORT")
        if text is None:
            return None
        try:
            address = urlsplit(text)
            named = address.hostname and address.port
        except ValueError:
            raise problem from None
        rest = (address.path.removeprefix("/"), address.query, address.fragment, address.username)
        if address.scheme not in {"http", "https"} or not named or any(rest):
            raise problem
        return text

    @field_validator("load_model", "cors_origin", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Splits the value of an environment variable at commas."""
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value
