"""The what-if sliders of the patient view: every number that they show is one that the server computed."""

import re
from collections.abc import Iterator

import pytest

from medserve_client import Client, FeatureValue, ModelDescription, PatientResult, RiskReasons, WhatIf
from samples import explained_models, onnx_models
from samples.patient import PATIENT
from servers.server_process import ServerProcess, running_server
from web.browser import Open, Page, expect
from web.patient.view import MODEL, describe, enter, numbers, predict, visit

MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script><b>bold</b>"
AGES = WhatIf("age", 21, 80, 60)
"""The curve that the view requests for a patient whose age is within the training data."""


@pytest.fixture(scope="module")
def description(site: ServerProcess) -> ModelDescription:
    return describe(site.target)


def ask(site: ServerProcess, patient: dict[str, FeatureValue], what_if: WhatIf | str | None = None) -> PatientResult:
    with Client(site.target) as client:
        return client.predict_risk(patient, MODEL, "1", RiskReasons(horizon="5 years", what_if=what_if)).results[0]


def curve(site: ServerProcess, patient: dict[str, FeatureValue], what_if: WhatIf | str) -> dict[float | str, float]:
    found = ask(site, patient, what_if).what_if
    assert found is not None
    return {point.value: point.risk for point in found.points}


def expect_risk(page: Page, risk: float) -> None:
    """Waits until the sliders show this risk, and compares its unrounded number."""
    expect(page.locator(".patient-readout")).to_contain_text(f"{risk:.1%}")
    assert numbers(page, ".patient-readout") == [pytest.approx(risk, abs=1e-9)]


def expect_comparison(page: Page, result: PatientResult, title: str) -> None:
    """Waits for the result of the changed patient, whose changes the table's caption lists."""
    expect(page.locator(".patient-comparison caption")).to_have_text(title)
    assert numbers(page, ".patient-comparison") == pytest.approx([risk.risk for risk in result.risks], abs=1e-9)


def test_each_position_of_a_slider_has_the_risk_of_the_api(
    open_page: Open, site: ServerProcess, description: ModelDescription
) -> None:
    opened = open_page(site.http_url)
    page = visit(opened)
    enter(page, description, PATIENT)
    predict(page)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or ""))
    ages = page.get_by_role("slider", name="Age at diagnosis")
    ages.focus()
    expect(page.locator(".patient-what-if img, .patient-what-if svg.chart")).not_to_have_count(0)
    expected = curve(site, PATIENT, AGES)
    for key, age in (("Home", 21), ("ArrowRight", 22), ("ArrowRight", 23), ("PageUp", None), ("End", 80)):
        ages.press(key)
        shown = float((ages.get_attribute("aria-valuetext") or "").removesuffix(" years"))
        assert age in (shown, None)
        expect_risk(page, expected[shown])
    assert sum("whatIf" in body for body in sent) == 1
    expect_comparison(page, ask(site, PATIENT | {"age": 80}), "Age at diagnosis: 80 years")


def test_the_curve_of_a_category_has_all_its_names(
    open_page: Open, site: ServerProcess, description: ModelDescription
) -> None:
    page = visit(open_page(site.http_url))
    enter(page, description, PATIENT)
    predict(page)
    group = page.locator(".patient-what-if").get_by_role("group", name="Histological grade of the tumor")
    group.get_by_role("radio", name="III", exact=True).check()
    expected = curve(site, PATIENT, "grade")
    expect_risk(page, expected["III"])
    bars = page.locator(".patient-what-if svg.bars")
    for name, risk in expected.items():
        expect(bars).to_have_attribute("aria-label", re.compile(re.escape(f"{name}: {risk:.1%}")))
    expect_comparison(page, ask(site, PATIENT | {"grade": "III"}), "Histological grade of the tumor: III")


def test_a_second_slider_keeps_the_value_of_the_first(
    open_page: Open, site: ServerProcess, description: ModelDescription
) -> None:
    page = visit(open_page(site.http_url))
    enter(page, description, PATIENT)
    predict(page)
    ages, nodes = (page.get_by_role("slider", name=name) for name in ("Age at diagnosis", "Number of positive"))
    nodes.focus()
    expect_risk(page, ask(site, PATIENT).risks[2].risk)
    ages.press("Home")
    expect_risk(page, curve(site, PATIENT, AGES)[21])
    nodes.press("End")
    expect_risk(page, curve(site, PATIENT | {"age": 21}, WhatIf("positive_nodes", 1, 51, 51))[51])
    changed = ask(site, PATIENT | {"age": 21, "positive_nodes": 51})
    expect_comparison(page, changed, "Age at diagnosis: 21 years; Number of positive axillary lymph nodes: 51 nodes")
    page.get_by_role("button", name="Back to the entered values").click()
    expect(ages).to_have_attribute("aria-valuetext", "55 years")
    ages.press("ArrowRight")
    expect_risk(page, curve(site, PATIENT, AGES)[56])


def test_values_that_no_slider_position_has_are_shown_as_entered(
    open_page: Open, site: ServerProcess, description: ModelDescription
) -> None:
    patient = PATIENT | {"age": 95.25, "estrogen_receptor": None}
    page = visit(open_page(site.http_url))
    enter(page, description, patient)
    predict(page)
    ages = page.get_by_role("slider", name="Age at diagnosis")
    expect(ages).to_have_attribute("aria-valuetext", "95.25 years")
    expect(page.get_by_role("slider", name="Estrogen")).to_have_attribute(
        "aria-valuetext", "missing; 38 fmol/l assumed"
    )
    ages.focus()
    expect_risk(page, ask(site, patient).risks[2].risk)
    ages.press("Home")
    expect_risk(page, ask(site, patient | {"age": 21}).risks[2].risk)


def test_a_lost_connection_can_be_tried_again(
    open_page: Open, site: ServerProcess, description: ModelDescription
) -> None:
    page = visit(open_page(site.http_url))
    enter(page, description, PATIENT)
    predict(page)
    page.context.set_offline(True)
    page.get_by_role("slider", name="Age at diagnosis").press("Home")
    alert = page.locator(".patient-what-if").get_by_role("alert")
    expect(alert).to_contain_text("The server cannot be reached")
    page.context.set_offline(False)
    alert.get_by_role("button", name="Try again").click()
    expect(alert).to_have_count(0)
    expect_risk(page, curve(site, PATIENT, AGES)[21])
    expect(page.locator(".patient-comparison")).to_be_visible()
    page.context.set_offline(True)
    page.get_by_role("slider", name="Age at diagnosis").press("ArrowRight")
    expect(alert).to_be_visible()
    expect(page.locator(".patient-comparison")).to_have_count(0)  # of the values before
    expect(page.locator(".patient-what-if [aria-busy]")).to_have_count(0)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Serves a model without background patients, ensemble and descriptions, and one with markup in its texts."""
    folder = tmp_path_factory.mktemp("models")
    onnx_models.save(folder, "plain-decay", explained_models.decay(explained_models.plain_decay_manifest()))
    manifest = explained_models.decay_manifest()
    task = manifest.patient_risk
    task.event = task.time_unit = task.risk_groups[0].label = MARKUP
    task.reference_horizon = task.horizons[1].label = MARKUP
    for feature in task.features:
        feature.description = f"{feature.name} {MARKUP}"
    task.features[1].unit = MARKUP
    task.features[2].categorical.names[1] = MARKUP
    onnx_models.save(folder, "decay", explained_models.decay(manifest))
    with running_server("--models", str(folder), "--transport", "grpcio") as server:
        yield server


def test_a_model_without_background_or_ensemble(open_page: Open, others: ServerProcess) -> None:
    page = visit(open_page(others.http_url), "plain-decay")
    page.locator(".patient-form").get_by_label("age").fill("60")
    predict(page)
    expect(page.locator(".patient-result")).to_contain_text("Shapley values are not available for this model.")
    expect(page.locator(".patient-risks")).not_to_contain_text("Spread")
    page.get_by_role("slider", name="age").press("Home")
    with Client(others.target) as client:
        expected = client.predict_risk({"age": 21}, "plain-decay").results[0].risks
    expect(page.locator(".patient-comparison caption")).to_have_text("age: 21 years")
    assert numbers(page, ".patient-comparison") == pytest.approx([one.risk for one in expected], abs=1e-9)


def test_markup_in_a_manifest_is_shown_as_text(open_page: Open, others: ServerProcess) -> None:
    page = visit(open_page(others.http_url), "decay")
    page.locator(".patient-form").get_by_label("age").fill("95")
    predict(page)
    page.get_by_role("slider", name="age").press("Home")
    expect(page.locator(".patient-comparison")).to_contain_text(MARKUP)
    expect(page.locator(".patient-warnings").first).to_contain_text(f"age {MARKUP}: 95 years is outside")
    assert page.locator("main img, main script, main b").count() == 0
