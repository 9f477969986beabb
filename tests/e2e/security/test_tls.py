"""TLS and mutual TLS with certificates that are replaced while the server runs."""

import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from medserve_client import Client, Tls, UnavailableError
from samples import onnx_models
from samples.certificates import Authority, Pair
from servers.server_process import ServerProcess, refusal, running_server
from waiting import PATIENCE, wait_until

HOSPITAL, OTHER = Authority("hospital"), Authority("other")


@dataclass
class Secured:
    """A server with TLS and the folder of its certificates."""

    server: ServerProcess
    folder: Path

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def write(self, pair: Pair) -> None:
        pair.write(self.folder / "server.pem", self.folder / "server.key")

    def serve(self, pair: Pair) -> None:
        """Replaces the server's certificate and waits until it is used."""
        self.write(pair)
        wait_until(lambda: self.served() == pair.certificate)

    def served(self) -> bytes:
        host, port = self.server.target.rsplit(":", 1)
        return ssl.get_server_certificate((host, int(port))).encode()

    def health(self, ca: bytes = HOSPITAL.pem, client_pair: Pair | None = None) -> str:
        """Returns the server's health as reported to medserve's client."""
        (self.folder / "ca.pem").write_bytes(ca)
        tls = Tls(self.folder / "ca.pem")
        if client_pair is not None:
            client_pair.write(self.folder / "client_pair.pem", self.folder / "client_pair.key")
            tls = Tls(self.folder / "ca.pem", self.folder / "client_pair.pem", self.folder / "client_pair.key")
        with Client(self.server.target, tls=tls, timeout=PATIENCE) as client:
            return client.health().name


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(folder, "identity", onnx_models.identity("FP32", ["batch", 3]))
    return folder


def secured(folder: Path, models: Path, *flags: str) -> Iterator[Secured]:
    HOSPITAL.issue().write(folder / "server.pem", folder / "server.key")
    files = ("--tls-certificate", str(folder / "server.pem"), "--tls-key", str(folder / "server.key"))
    with running_server("--models", str(models), *files, *flags, log=folder / "log") as server:
        yield Secured(server, folder)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory, models: Path, transport: str) -> Iterator[Secured]:
    yield from secured(tmp_path_factory.mktemp("tls"), models, "--transport", transport)


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory, models: Path, transport: str) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("mutual")
    (folder / "clients.pem").write_bytes(HOSPITAL.pem)
    flags = ("--transport", transport, "--tls-client-ca", str(folder / "clients.pem"), "--require-auth", "--access-log")
    yield from secured(folder, models, *flags)


def test_valid_certificate_is_trusted(tls: Secured) -> None:
    tls.serve(HOSPITAL.issue())
    assert tls.health() == "SERVING"


@pytest.mark.parametrize(
    "pair",
    [OTHER.issue(), HOSPITAL.issue(days=-1), HOSPITAL.issue(host="elsewhere.example")],
    ids=["another authority", "expired", "another host"],
)
def test_invalid_certificate_is_not_trusted(tls: Secured, pair: Pair) -> None:
    tls.serve(pair)
    with pytest.raises(UnavailableError, match=r"(?i)verif|certificate"):
        tls.health()


def test_client_without_tls_is_rejected(tls: Secured) -> None:
    with Client(tls.server.target, timeout=PATIENCE) as client, pytest.raises(UnavailableError):
        client.health()


def test_renewed_certificate_is_used_without_a_restart(tls: Secured) -> None:
    tls.serve(HOSPITAL.issue())
    credentials = grpc.ssl_channel_credentials(HOSPITAL.pem)
    with grpc.secure_channel(tls.server.target, credentials) as before:
        check: Any = before.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"")
        tls.serve(OTHER.issue())
        assert check(b""), "an open connection is kept"
    assert tls.health(ca=OTHER.pem) == "SERVING"
    with pytest.raises(UnavailableError):
        tls.health(ca=HOSPITAL.pem)


@pytest.mark.parametrize("damage", ["half", "not PEM", "gone"])
def test_certificate_without_matching_key_is_not_used(tls: Secured, damage: str) -> None:
    first, second = HOSPITAL.issue(), HOSPITAL.issue()
    tls.serve(first)
    before = tls.log.count("cannot be reloaded")
    certificate = tls.folder / "server.pem"
    if damage == "gone":
        certificate.unlink()
    else:
        certificate.write_bytes(second.certificate if damage == "half" else b"nothing")

    def is_logged() -> bool:
        assert tls.served() == first.certificate  # each connection makes the server check its files
        return tls.log.count("cannot be reloaded") == before + 1

    wait_until(is_logged)
    assert tls.health() == "SERVING"
    tls.serve(second)  # accepted together with its key


def test_mutual_tls_accepts_clients_with_a_certificate(mutual: Secured) -> None:
    assert mutual.health(client_pair=HOSPITAL.issue("client")) == "SERVING"


def test_log_contains_the_name_in_the_client_certificate(mutual: Secured) -> None:
    for name in ("ward-3", "ward-4"):
        mutual.health(client_pair=HOSPITAL.issue(name))
        line = f'client="{name}"'
        wait_until(lambda: line in mutual.log, f"a log line about {name}")  # noqa: B023 - called before the next name


@pytest.mark.parametrize(
    "client_pair",
    [None, OTHER.issue("client"), HOSPITAL.issue("client", days=-1)],
    ids=["no certificate", "another authority", "expired"],
)
def test_mutual_tls_rejects_clients_without_a_valid_certificate(mutual: Secured, client_pair: Pair | None) -> None:
    with pytest.raises(UnavailableError):
        mutual.health(client_pair=client_pair)


def test_replacing_the_authority_rejects_its_clients(mutual: Secured) -> None:
    clients = mutual.folder / "clients.pem"
    clients.write_bytes(OTHER.pem)

    def is_accepted(authority: Authority) -> bool:
        try:
            return mutual.health(client_pair=authority.issue("client")) == "SERVING"
        except UnavailableError:
            return False

    wait_until(lambda: is_accepted(OTHER))
    assert not is_accepted(HOSPITAL)
    clients.write_bytes(HOSPITAL.pem)
    wait_until(lambda: is_accepted(HOSPITAL))


def test_invalid_tls_settings_are_reported(transport: str, tmp_path: Path) -> None:
    HOSPITAL.issue().write(tmp_path / "a.pem", tmp_path / "a.key")
    HOSPITAL.issue().write(tmp_path / "b.pem", tmp_path / "b.key")
    certificate = ("--transport", transport, "--tls-certificate", str(tmp_path / "a.pem"))
    assert "given together" in refusal(*certificate)
    assert "the key does not match the certificate" in refusal(*certificate, "--tls-key", str(tmp_path / "b.key"))


def test_public_address_without_protection_causes_a_warning(tmp_path: Path, models: Path) -> None:
    log = tmp_path / "log"
    with running_server("--models", str(models), "--host", "0.0.0.0", "--transport", "grpcio", log=log) as server:
        assert server.metrics()
    assert [word for word in ("NO AUTHENTICATION", "NO ENCRYPTION") if word in log.read_text()] == [
        "NO AUTHENTICATION",
        "NO ENCRYPTION",
    ]
