"""The settings: values only. `medserve_server.process.flags` reads them."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator

from medserve_images import ImageLimits
from medserve_server.cpus import available_cpus
from medserve_server.version_policy import VersionPolicy


def host_and_port(host: str, port: int) -> str:
    """Joins a host and a port as addresses are written, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class SettingsError(Exception):
    """Settings that can't go together; the message names them."""


class Settings(BaseModel):
    """Everything a server can be told. Each field is a flag, an environment variable MEDSERVE_* and a key of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: Path | None = Field(default=None, description="TOML file with settings.")

    models: Path = Field(
        default=Path("models"), description="Model repository: a folder of <name>/<version>/model.onnx."
    )
    model_control: Literal["none", "poll", "explicit"] = Field(
        default="none",
        description="When the repository is looked into: at the start alone (none), every --poll-interval (poll), or "
        "for --load-model, RepositoryModelLoad and RepositoryModelUnload (explicit).",
    )
    poll_interval: PositiveFloat = Field(default=5.0, description="Seconds between two looks into the repository.")
    load_model: tuple[str, ...] = Field(
        default=(), description="Model to load at the start, with --model-control explicit; may be given repeatedly."
    )
    version_policy: str = Field(
        default="all",
        description="Versions that are served: all, latest:N, and for single models NAME=all, NAME=latest:N or "
        "NAME=1,3; separated by spaces.",
    )
    max_model_mib: PositiveInt = Field(default=512, description="Size of a model file, in MiB.")
    require_signed: Path | None = Field(
        default=None,
        description="PEM file of an ed25519 public key: only models are served that have its signature beside them, "
        "in model.onnx.sig.",
    )

    host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface.")
    port: int = Field(default=8001, ge=0, le=65535, description="gRPC port; 0 takes a free one.")
    metrics_port: int = Field(
        default=8002, ge=0, le=65535, description="Port of the Prometheus page /metrics; 0 takes a free one."
    )

    http_port: int = Field(
        default=8000, ge=0, le=65535, description="Port of REST with --transport grpcio; 0 takes a free one."
    )

    cors_origin: tuple[str, ...] = Field(
        default=(),
        description="Origin whose pages may call the server from a browser, e.g. https://viewer.example.org, or * for "
        "every one; may be given repeatedly.",
    )

    transport: Literal["auto", "envoy", "grpcio"] = Field(
        default="auto",
        description="What clients talk to: envoy (gRPC, gRPC-Web and REST on --port; of the extra envoy), or grpcio "
        "(gRPC on --port, REST on --http-port); auto takes envoy where it can run.",
    )

    workers: PositiveInt = Field(
        default=1, description="Server processes on the port, each with its share of the processors."
    )

    provider: Literal["auto", "tensorrt", "cuda", "openvino", "cpu"] = Field(
        default="auto", description="ONNX Runtime execution provider; auto takes the first of these that works here."
    )
    max_deviation: PositiveFloat = Field(
        default=0.005, description="Most that a provider may change a probability of the manifest's reference rows."
    )
    allow_fallback: bool = Field(
        default=False, description="Serve on the CPU, with a warning, where the provider can't be had."
    )
    threads: PositiveInt | None = Field(
        default=None,
        description="Threads of one inference; by default the processors it may use, one for a small model.",
    )
    cuda_device: int = Field(default=0, ge=0, description="Which GPU.")
    cuda_memory_limit_mib: PositiveInt | None = Field(
        default=None, description="Most GPU memory that a model's arena may take, in MiB; by default no limit."
    )

    max_batch_rows: PositiveInt = Field(default=64, description="Rows of different requests joined into one execution.")
    max_pending_requests: PositiveInt = Field(
        default=1024, description="Requests waiting for a model; one more is refused with RESOURCE_EXHAUSTED."
    )
    max_run_seconds: PositiveFloat = Field(
        default=30.0, description="Seconds that one run of a model may take; then it is ended, or its model suspended."
    )
    max_batch_delay_ms: float = Field(
        default=0.0, ge=0, description="Milliseconds that a request may wait for others to fill its batch."
    )
    max_request_rows: PositiveInt = Field(default=4096, description="Images, patients or rows of one request.")
    max_connection_streams: PositiveInt = Field(
        default=256, description="Calls under way on one connection; a client keeps the next ones to itself."
    )
    max_message_mib: PositiveInt = Field(default=64, description="Size of a gRPC message, either way, in MiB.")
    max_image_megapixels: PositiveFloat = Field(
        default=ImageLimits().max_pixels / 1e6,
        description="Pixels of an encoded image, in millions, checked before it is decoded.",
    )

    # Who may come in (docs/security.md).
    tls_certificate: Path | None = Field(
        default=None, description="PEM file of the server's certificate and its chain; reread when it changes."
    )
    tls_key: Path | None = Field(default=None, description="PEM file of the certificate's private key.")
    tls_client_ca: Path | None = Field(
        default=None, description="PEM file of the authorities that a client's certificate must come from."
    )
    tokens: Path | None = Field(
        default=None, description="File of clients, scopes and hashed tokens (medserve-server token makes its lines)."
    )
    require_auth: bool = Field(default=False, description="Start only with --tokens or --tls-client-ca.")
    metrics_token_file: Path | None = Field(
        default=None, description="File with the token that /metrics asks for; by default it asks for none."
    )

    # Limits on a client, a connection, and what a request holds.
    max_client_calls: PositiveInt = Field(
        default=512, description="Calls of one client under way: of its token's name, else of its address."
    )
    max_client_rate: PositiveFloat | None = Field(
        default=None, description="Requests of one client in a second; by default no limit."
    )
    max_connections: PositiveInt = Field(default=500, description="Connections; one more is closed at once.")
    max_connection_age: PositiveFloat = Field(
        default=3600.0, description="Seconds until a connection takes no new calls; after as many again it is cut."
    )
    max_connection_idle: PositiveFloat = Field(
        default=900.0, description="Seconds after which a connection without calls is closed."
    )
    min_ping_interval: PositiveFloat = Field(
        default=300.0, description="Seconds that a client has to leave between pings; two too early are forgiven."
    )
    max_name_length: PositiveInt = Field(
        default=256, description="Characters of a model's name or version, and of a request's id."
    )
    max_patient_features: PositiveInt = Field(default=256, description="Values given for one patient.")
    max_image_ratio: PositiveFloat = Field(
        default=ImageLimits().max_ratio,
        description="Pixels for each byte of an encoded image of more than a megapixel.",
    )

    drain_delay: float = Field(
        default=0.0, ge=0, description="Seconds between NOT_SERVING and the end of accepting work, after SIGTERM."
    )
    grace: float = Field(default=30.0, ge=0, description="Seconds that accepted work gets to finish, after that.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="Of the log; json: nothing else is written.",
    )
    access_log: bool = Field(default=False, description="Log every call that ended (docs/observability.md).")
    otlp_endpoint: str | None = Field(
        default=None,
        description="OpenTelemetry collector to send traces to by OTLP over gRPC, as http://HOST:4317, or https://; "
        "of the extra otel. OTEL_EXPORTER_OTLP_ENDPOINT is used where nothing else names one.",
    )

    @property
    def address(self) -> str:
        """Host and gRPC port, an IPv6 address in brackets."""
        return host_and_port(self.host, self.port)

    @property
    def serves_http_port(self) -> bool:
        """Whether REST has a port of its own."""
        return self.transport in {"auto", "grpcio"}

    @property
    def cpus(self) -> int:
        """Processors of one worker."""
        return max(1, available_cpus() // self.workers)

    @property
    def stream_window(self) -> int:
        """Requests of one stream under way at once: enough to fill a batch, not so many as to fill the queue."""
        return min(self.max_batch_rows, self.max_pending_requests)

    @field_validator("version_policy")
    @classmethod
    def _check_version_policy(cls, text: str) -> str:
        VersionPolicy.parse(text)
        return text

    @field_validator("otlp_endpoint")
    @classmethod
    def _check_otlp_endpoint(cls, text: str | None) -> str | None:
        # The exporter takes host and port alone; a password in the rest would become part of the host.
        problem = ValueError("is no address of a collector, expected http://HOST:PORT or https://HOST:PORT")
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
        """Splits a variable's list at its commas."""
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value
