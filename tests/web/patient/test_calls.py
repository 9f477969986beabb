"""The calls of the patient view: a busy server, a lost connection, and the commands that it shows."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from medserve_client import Client, ModelDescription, RiskReasons
from samples.patient import PATIENT
from servers.held_server import HeldServer, held_server
from waiting import PATIENCE
from web.browser import Open, Page, Route, expect
from web.patient.view import MODEL, describe, enter, numbers, predict, visit
from web.shown_commands import run_shown

ROWS = 600
"""More than two batches."""


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldServer]:
    """A server that refuses a third call at once."""
    file = tmp_path_factory.mktemp("held") / "held"
    with held_server(file, "--max-pending-requests", "2") as server:
        yield server


@pytest.fixture(scope="module")
def description(held: HeldServer) -> ModelDescription:
    return describe(held.server.target)


@pytest.fixture
def page(open_page: Open, held: HeldServer) -> Page:
    return visit(open_page(held.server.http_url))


@contextmanager
def busy(held: HeldServer) -> Iterator[None]:
    """Has the server refuse calls until the block ends."""

    def call() -> None:
        with Client(held.server.target, timeout=PATIENCE) as client:
            client.predict_risk(PATIENT, MODEL)

    with ThreadPoolExecutor(2) as pool:
        with held.hold():
            calls = [pool.submit(call) for _ in range(2)]
            held.wait_for_calls(2)
            yield
        for one in calls:
            one.result(PATIENCE)


def choose(page: Page) -> None:
    text = "age,positive_nodes\n" + "45,2\n" * ROWS
    page.get_by_label("CSV file").set_input_files(
        {"name": "patients.csv", "mimeType": "text/csv", "buffer": text.encode()}
    )


def test_a_busy_server_is_named_and_tried_again(page: Page, held: HeldServer, description: ModelDescription) -> None:
    enter(page, description, PATIENT)
    with busy(held):
        page.locator(".patient-form button[type=submit]").click()
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text("The server is busy")
    alert.get_by_role("button", name="Try again").click()
    expect(page.locator(".patient-risks")).to_be_visible()


def test_a_lost_connection_hides_the_result_before(page: Page, description: ModelDescription) -> None:
    enter(page, description, PATIENT)
    predict(page)
    page.context.set_offline(True)
    page.locator(".patient-form button[type=submit]").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The server cannot be reached")
    expect(page.locator(".patient-risks")).to_have_count(0)
    page.context.set_offline(False)
    alert.get_by_role("button", name="Try again").click()
    expect(page.locator(".patient-risks")).to_be_visible()


def test_only_the_last_of_several_requests_is_shown(
    page: Page, held: HeldServer, description: ModelDescription
) -> None:
    unanswered: list[Route] = []
    ended: list[str | None] = []
    page.route("**/*:predictRisk", lambda route: route.continue_() if unanswered else unanswered.append(route))
    page.on("requestfailed", lambda request: ended.append(request.failure))
    enter(page, description, PATIENT)
    page.locator(".patient-form button[type=submit]").click()
    expect(page.locator(".patient-result")).to_have_attribute("aria-busy", "true")
    enter(page, description, {"age": 70})
    predict(page)
    assert ended == ["net::ERR_ABORTED"]
    with Client(held.server.target) as client:
        (expected,) = client.predict_risk(PATIENT | {"age": 70}, MODEL).results
    assert numbers(page, ".patient-risks")[0] == pytest.approx(expected.risks[0].risk, abs=1e-9)


def test_no_risk_is_shown_while_that_of_a_new_value_is_computed(
    page: Page, held: HeldServer, description: ModelDescription
) -> None:
    enter(page, description, PATIENT)
    predict(page)
    readout = page.locator(".patient-readout")
    nodes = page.get_by_role("slider", name="Number of positive")
    nodes.focus()
    expect(readout.locator("data")).to_be_visible()
    with held.hold():
        page.get_by_role("slider", name="Age at diagnosis").press("Home")
        held.wait_for_calls(2)
        expect(readout).to_have_text("Computing …")
    expect(page.locator(".patient-comparison")).to_be_visible()
    with Client(held.server.target) as client:
        (expected,) = client.predict_risk(PATIENT | {"age": 21}, MODEL).results
    expect(readout).to_contain_text(f"{expected.risks[2].risk:.1%}")


def test_many_patients_can_be_canceled_and_continued(page: Page, held: HeldServer) -> None:
    section = page.get_by_role("region", name="Many patients")
    with held.hold():
        choose(page)
        held.wait_for_calls(1)
        expect(section.get_by_role("status")).to_have_text(f"patients.csv: 0 of {ROWS} patients")
        section.get_by_role("button", name="Cancel").click()
        expect(section).to_contain_text("Canceled.")
    section.get_by_role("button", name="Continue").click()
    expect(section.get_by_role("status")).to_have_text(f"patients.csv: {ROWS} of {ROWS} patients")
    expect(section.get_by_role("button", name="Save patients-risk.csv")).to_be_visible()


def test_many_patients_go_on_after_a_lost_connection(page: Page) -> None:
    section = page.get_by_role("region", name="Many patients")
    page.context.set_offline(True)
    choose(page)
    alert = section.get_by_role("alert")
    expect(alert).to_contain_text("The server cannot be reached")
    page.context.set_offline(False)
    alert.get_by_role("button", name="Try again").click()
    expect(section.get_by_role("status")).to_have_text(f"patients.csv: {ROWS} of {ROWS} patients")
    expect(alert).to_have_count(0)


@pytest.mark.parametrize("language", ["curl", "Python", "Node"])
@pytest.mark.parametrize("part", [".patient-result", ".patient-what-if"])
def test_the_commands_run_as_shown(
    page: Page, held: HeldServer, description: ModelDescription, tmp_path: Path, language: str, part: str
) -> None:
    enter(page, description, PATIENT)
    predict(page)
    if part == ".patient-what-if":
        page.get_by_role("slider", name="Age at diagnosis").press("Home")
        expect(page.locator(".patient-comparison")).to_be_visible()
    output = run_shown(page.locator(f"{part} .commands"), language, tmp_path)
    age = 21 if part == ".patient-what-if" else PATIENT["age"]
    with Client(held.server.target) as client:
        reasons = RiskReasons(shapley=True)
        (expected,) = client.predict_risk(PATIENT | {"age": age}, MODEL, "1", reasons).results
    if language == "Python":
        for risk in expected.risks:
            assert f"{risk.horizon} {risk.risk}" in output
        assert ("WhatIfCurve" if age == 21 else "ShapleyValues") in output
    else:
        (found,) = json.loads(output)["results"]
        assert [risk["risk"] for risk in found["risks"]] == pytest.approx([risk.risk for risk in expected.risks])
        assert ("whatIf" if age == 21 else "shapley") in found
