"""Channel credentials: tokens never leave the machine unencrypted."""

import pytest

from medserve_client import Client, Tls
from medserve_client.channel import channel_credentials
from medserve_client.cli import main

WORD = "a-secret"


@pytest.mark.parametrize(
    "target",
    ["127.0.0.1:8001", "127.8.8.8:1", "localhost:8001", "[::1]:8001", "dns:///localhost:8001", "unix:/run/medserve"],
)
def test_a_token_may_be_sent_to_this_machine_in_plaintext(target: str) -> None:
    assert channel_credentials(target, None, "token") is not None


@pytest.mark.parametrize(
    "target",
    [
        "10.0.0.1:8001",
        "medserve:8001",
        "dns:///medserve:8001",
        "dns://127.0.0.1/medserve:8001",
        "[2001:db8::1]:8001",
        "localhost.example:8001",
        "127.0.0.1.example:8001",
        "ipv4:127.0.0.1:8001,10.0.0.1:8001",
        "ipv4:10.0.0.1:8001,127.0.0.1:8001",
    ],
)
def test_a_token_is_not_sent_to_another_machine_in_plaintext(target: str) -> None:
    with pytest.raises(ValueError, match="unencrypted; use TLS"):
        Client(target, token=WORD)
    Client(target, tls=Tls(), token=WORD).close()


@pytest.mark.parametrize("token", ["", "two words", "line\n", "umläut"])
def test_an_invalid_token_is_not_quoted(token: str) -> None:
    with pytest.raises(ValueError, match="the token is empty, or contains") as caught:
        Client("127.0.0.1:8001", token=token)
    assert not token or token not in str(caught.value)


def test_a_certificate_without_key_is_rejected() -> None:
    with pytest.raises(ValueError, match="certificate and key go together"):
        Client("127.0.0.1:8001", tls=Tls(certificate="own.pem"))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--token-file", "nowhere"], "nowhere: cannot be read: No such file"),
        (["--ca", "nowhere.pem"], "nowhere.pem: cannot be read: No such file"),
        (["--cert", __file__], "certificate and key go together"),
        (["--server", "far.example:1", "--token-file", __file__], "unencrypted"),
    ],
)
def test_the_command_reports_invalid_credentials(
    flags: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags, "health"]) == 2
    assert main(["health", *flags]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("scheme", ["http://", "HTTPS://"])
def test_a_url_is_refused_as_a_server(scheme: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=f"write HOST:PORT, without {scheme}"):
        Client(f"{scheme}localhost:8001")
    with pytest.raises(SystemExit, match="2"):
        main(["--server", f"{scheme}localhost:8001", "health"])
    assert f"write HOST:PORT, without {scheme}" in capsys.readouterr().err


def test_the_token_may_be_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEDSERVE_TOKEN", WORD)
    assert main(["--server", "far.example:1", "health"]) == 2
    assert "unencrypted" in capsys.readouterr().err
    assert main(["--server", "far.example:1", "loadtest"]) == 2
    assert "unencrypted" in capsys.readouterr().err
