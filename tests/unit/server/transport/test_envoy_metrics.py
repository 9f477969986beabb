"""The counters that Envoy keeps, while Envoy does not answer."""

import logging
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from medserve_server.transport.envoy.metrics import EnvoyRefusals


def test_a_scrape_while_envoy_is_gone_reports_the_last_counts_and_no_bug(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    registry.register(EnvoyRefusals(tmp_path / "admin.sock"))
    with caplog.at_level(logging.INFO):
        page = generate_latest(registry).decode()
    assert 'medserve_envoy_refused_total{kind="requests"} 0.0' in page
    (record,) = caplog.records
    assert (record.levelname, record.exc_info) == ("INFO", None)
