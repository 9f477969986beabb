"""Certificates that are read, checked and replaced; handshakes take place in memory."""

import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from medserve_server import file_reloader
from medserve_server.config import Settings, SettingsError
from medserve_server.security.tls import Certificates, read_certificates, server_context
from samples.certificates import Authority, Pair

HOSPITAL = Authority("hospital")
STRANGER = Authority("stranger")
FIRST, SECOND = HOSPITAL.issue(), HOSPITAL.issue()


@pytest.fixture(autouse=True)
def _look_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reloader, "POLL_INTERVAL", 0.0)


@dataclass(frozen=True)
class Files:
    """The PEM files of a server."""

    certificate: Path
    key: Path
    client_ca: Path

    def settings(self, *, mutual: bool = False) -> Settings:
        client_ca = self.client_ca if mutual else None
        return Settings(tls_certificate=self.certificate, tls_key=self.key, tls_client_ca=client_ca)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(tmp_path / "certificate.pem", tmp_path / "key.pem", tmp_path / "client-ca.pem")
    FIRST.write(made.certificate, made.key)
    made.client_ca.write_bytes(HOSPITAL.pem)
    return made


def client(folder: Path, own: Pair | None = None) -> ssl.SSLContext:
    """Trusts the hospital; presents a certificate if one is given."""
    context = ssl.create_default_context(cadata=HOSPITAL.pem.decode())
    if own is not None:
        paths = folder / "own.pem", folder / "own-key.pem"
        own.write(*paths)
        context.load_cert_chain(*paths)
    return context


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes:
    """Returns the certificate that the server presents."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):  # flights of messages, of which a handshake has at most three
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    presented = ends[0].getpeercert(binary_form=True)
    assert presented is not None
    return presented


def presented_by(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.certificate.decode())


Read = Callable[[Settings], object]
both = pytest.mark.parametrize("read", [read_certificates, server_context])


@both
@pytest.mark.parametrize("missing", ["tls_certificate", "tls_key"])
def test_without_certificate_or_key_there_is_no_tls(files: Files, read: Read, missing: str) -> None:
    assert read(Settings()) is None
    assert read(files.settings().model_copy(update={missing: None})) is None


@pytest.mark.parametrize("mutual", [False, True])
def test_the_files_are_read_whole_and_again_when_they_change(files: Files, mutual: bool) -> None:
    certificates = read_certificates(files.settings(mutual=mutual))
    assert certificates is not None
    client_ca = HOSPITAL.pem if mutual else None
    assert certificates.current() == Certificates(FIRST.certificate, FIRST.key, client_ca)
    SECOND.write(files.certificate, files.key)
    assert certificates.current() == Certificates(SECOND.certificate, SECOND.key, client_ca)
    files.client_ca.write_bytes(STRANGER.pem)
    assert certificates.current().client_ca == (STRANGER.pem if mutual else None)


@both
@pytest.mark.parametrize("name", ["certificate", "key", "client_ca"])
def test_a_file_that_is_missing_or_no_pem_file_is_named(files: Files, read: Read, name: str) -> None:
    path: Path = getattr(files, name)
    path.write_bytes(b"no PEM file")
    with pytest.raises(SettingsError, match=rf"--tls-.* {path}.*: not a valid PEM file \(.+\)"):
        read(files.settings(mutual=True))
    path.unlink()
    with pytest.raises(SettingsError, match="No such file or directory"):
        read(files.settings(mutual=True))


@both
def test_a_key_of_another_certificate_is_refused(files: Files, read: Read) -> None:
    files.key.write_bytes(SECOND.key)
    with pytest.raises(SettingsError) as caught:
        read(files.settings())
    expected = (
        f"--tls-certificate {files.certificate} and --tls-key {files.key}: the key does not match the certificate"
    )
    assert str(caught.value) == expected


@both
def test_a_key_with_a_password_is_refused_and_no_password_is_asked_for(files: Files, read: Read) -> None:
    key = serialization.load_pem_private_key(FIRST.key, None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, encryption))
    with pytest.raises(SettingsError, match="--tls-key: the key is encrypted; store it without a password"):
        read(files.settings())


def test_half_a_replacement_changes_nothing_and_the_whole_one_is_taken(files: Files) -> None:
    """Certificate and key are two files, which cannot be replaced at the same moment."""
    certificates = read_certificates(files.settings())
    context = server_context(files.settings())
    assert certificates is not None
    assert context is not None
    trusting = client(files.key.parent)
    files.certificate.write_bytes(SECOND.certificate)
    assert certificates.current().certificate == FIRST.certificate
    assert shake_hands(context, trusting) == presented_by(FIRST)
    files.key.write_bytes(SECOND.key)
    assert certificates.current().certificate == SECOND.certificate
    assert shake_hands(context, trusting) == presented_by(SECOND)


@pytest.mark.parametrize("named", [True, False], ids=["with a server name", "without"])
def test_each_handshake_presents_the_certificate_of_its_time(files: Files, named: bool) -> None:
    context = server_context(files.settings())
    assert context is not None
    trusting = client(files.key.parent)
    if not named:  # an address is never sent as a name, and neither is one that is not checked
        trusting.check_hostname = False
    for pair in (FIRST, SECOND, FIRST):
        pair.write(files.certificate, files.key)
        assert shake_hands(context, trusting) == presented_by(pair)


def test_a_client_that_does_not_trust_the_authority_does_not_connect(files: Files) -> None:
    context = server_context(files.settings())
    assert context is not None
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(context, ssl.create_default_context(cadata=STRANGER.pem.decode()))


def test_without_mutual_tls_no_certificate_of_a_client_is_asked_for(files: Files) -> None:
    context = server_context(files.settings())
    assert context is not None
    assert shake_hands(context, client(files.key.parent)) == presented_by(FIRST)


@pytest.mark.parametrize(
    ("own", "admitted"),
    [(SECOND, True), (None, False), (STRANGER.issue(), False), (HOSPITAL.issue(days=-1), False)],
    ids=["of the hospital", "none", "of a stranger", "expired"],
)
def test_mutual_tls_admits_who_has_a_certificate_of_the_authority(
    files: Files, own: Pair | None, admitted: bool
) -> None:
    context = server_context(files.settings(mutual=True))
    assert context is not None
    connecting = client(files.key.parent, own)
    if admitted:
        assert shake_hands(context, connecting) == presented_by(FIRST)
        return
    with pytest.raises(ssl.SSLError):
        shake_hands(context, connecting)


def test_another_authority_shuts_out_the_clients_of_the_former_one(files: Files) -> None:
    context = server_context(files.settings(mutual=True))
    assert context is not None
    former = client(files.key.parent, SECOND)
    assert shake_hands(context, former) == presented_by(FIRST)
    files.client_ca.write_bytes(b"no PEM file")
    assert shake_hands(context, former) == presented_by(FIRST), "a file that is wrong changes nothing"
    files.client_ca.write_bytes(STRANGER.pem)
    with pytest.raises(ssl.SSLError):
        shake_hands(context, former)
    newcomer = client(files.key.parent, STRANGER.issue())
    assert shake_hands(context, newcomer) == presented_by(FIRST)
