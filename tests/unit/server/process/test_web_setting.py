"""When the web page is served: on loopback unless refused, elsewhere only if asked for."""

import pytest

from medserve_server.process.flags import read_settings


@pytest.mark.parametrize(
    ("flags", "served"),
    [
        ((), True),
        (("--host", "localhost"), True),
        (("--host", "::1"), True),
        (("--host", "127.0.0.2"), True),
        (("--no-web",), False),
        (("--host", "0.0.0.0"), False),
        (("--host", "::"), False),
        (("--host", "192.0.2.1"), False),
        (("--host", "medserve.example.org"), False),
        (("--host", "0.0.0.0", "--web"), True),
        (("--host", "0.0.0.0", "--no-web"), False),
    ],
)
def test_the_page_is_served_on_loopback_or_if_asked_for(flags: tuple[str, ...], served: bool) -> None:
    assert read_settings(flags).serves_web is served


def test_the_environment_can_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDSERVE_WEB", "true")
    assert read_settings(("--host", "0.0.0.0")).serves_web
    assert not read_settings(("--host", "0.0.0.0", "--no-web")).serves_web
