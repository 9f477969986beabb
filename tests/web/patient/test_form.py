"""The form of one patient and the result, in a real browser and from the real server."""

import re

import pytest

from medserve_client import Client, FeatureValue, ModelDescription, RiskReasons, RiskResponse
from samples.patient import PATIENT
from servers.server_process import ServerProcess
from web.axe import violations
from web.browser import Open, Page, expect
from web.patient.view import MODEL, describe, enter, numbers, predict, visit


@pytest.fixture(scope="module")
def description(site: ServerProcess) -> ModelDescription:
    return describe(site.target)


@pytest.fixture
def page(open_page: Open, site: ServerProcess) -> Page:
    return visit(open_page(site.http_url))


def answer(site: ServerProcess, patient: dict[str, FeatureValue], horizon: str = "5 years") -> RiskResponse:
    with Client(site.target) as client:
        return client.predict_risk(patient, MODEL, "1", RiskReasons(horizon=horizon, shapley=True))


def remark(page: Page, label: str) -> str:
    """The text about the value of a field."""
    field = page.locator(".patient-field", has_text=label)
    return field.locator(".patient-remark").inner_text()


def test_the_form_has_every_feature_with_its_ranges(page: Page, description: ModelDescription) -> None:
    fields = page.locator(".patient-field")
    features = description.manifest.patient_risk.features
    assert fields.count() == len(features)
    for index, feature in enumerate(features):
        field = fields.nth(index)
        expect(field).to_contain_text(feature.description)
        expect(field).to_contain_text("(required)" if feature.required else "If missing")
        if feature.HasField("categorical"):
            names = [*feature.categorical.names, *([] if feature.required else ["not known"])]
            assert field.get_by_role("radio").count() == len(names)
            for name in names:
                expect(field.get_by_role("radio", name=name, exact=True)).to_be_visible()
        else:
            expect(field).to_contain_text(feature.unit)
            for number in (feature.numeric.valid_max, feature.numeric.training_max):
                expect(field).to_contain_text(f"{number:g}")


def test_the_result_has_the_numbers_of_the_api(page: Page, site: ServerProcess, description: ModelDescription) -> None:
    enter(page, description, PATIENT)
    predict(page)
    (expected,) = answer(site, PATIENT).results
    flat = [number for risk in expected.risks for number in (risk.risk, risk.uncertainty)]
    assert numbers(page, ".patient-risks") == pytest.approx(flat, abs=1e-9)
    for risk in expected.risks:
        row = page.locator(".patient-risks tr", has_text=risk.horizon)
        expect(row).to_contain_text(f"{risk.risk:.1%}")
        expect(row).to_contain_text(f"± {risk.uncertainty:.1%}")
    expect(page.locator(".patient-groups [aria-current=true]")).to_contain_text(expected.risk_group)
    expect(page.locator(".patient-result")).to_contain_text("None: all values were given")
    assert numbers(page, ".patient-numbers") == pytest.approx(expected.survival.probabilities.tolist(), abs=1e-7)
    expect(page.get_by_role("status").filter(has_text=f"Risk group: {expected.risk_group}")).to_have_count(1)


@pytest.mark.parametrize("horizon", ["1 year", "5 years"])
def test_the_contributions_add_up_to_the_risk(
    page: Page, site: ServerProcess, description: ModelDescription, horizon: str
) -> None:
    enter(page, description, PATIENT)
    predict(page)
    page.get_by_label("Explain the risk within").select_option(horizon)
    expect(page.get_by_role("heading", name=f"Why this risk: contributions within {horizon}")).to_be_visible()
    base, *contributions, risk = numbers(page, ".patient-shapley")
    (expected,) = answer(site, PATIENT, horizon).results
    assert expected.shapley is not None
    assert base == pytest.approx(expected.shapley.base_risk, abs=1e-9)
    assert sorted(contributions) == pytest.approx(sorted(one.value for one in expected.shapley.contributions), abs=1e-9)
    assert [abs(one) for one in contributions] == sorted((abs(one) for one in contributions), reverse=True)
    assert base + sum(contributions) == pytest.approx(risk, abs=1e-9)
    assert risk == pytest.approx(next(one.risk for one in expected.risks if one.horizon == horizon), abs=1e-9)


def test_missing_values_are_marked_as_assumed(page: Page, site: ServerProcess, description: ModelDescription) -> None:
    patient: dict[str, FeatureValue] = {"age": 45, "positive_nodes": 2}
    enter(page, description, patient)
    predict(page)
    (expected,) = answer(site, patient).results
    assert numbers(page, ".patient-risks")[0] == pytest.approx(expected.risks[0].risk, abs=1e-9)
    warnings = page.locator(".patient-warnings li")
    expect(warnings).to_have_count(len(expected.warnings))
    expect(warnings.filter(has_text="Largest diameter of the tumor is missing; the model assumed 25 mm")).to_have_count(
        1
    )
    expect(warnings.filter(has_text="Menopausal status is missing; the model assumed post")).to_have_count(1)
    expect(page.locator(".patient-shapley tr", has_text="Largest diameter")).to_contain_text("missing; 25 mm assumed")


def test_a_value_outside_the_training_data_is_explained_before_and_after(
    page: Page, description: ModelDescription
) -> None:
    enter(page, description, PATIENT | {"age": 95})
    page.keyboard.press("Tab")
    assert "95 years is outside the range of the training data, 21 to 80 years" in remark(page, "Age at diagnosis")
    predict(page)
    expect(page.locator(".patient-warnings")).to_contain_text("Age at diagnosis: 95 years is outside the range")


@pytest.mark.parametrize(
    ("label", "value", "text"),
    [
        ("Age at diagnosis", "17", "17 is outside the valid range; expected a number from 18 to 110 years"),
        ("Age at diagnosis", "", "A value is required: a number from 18 to 110 years"),
        ("Age at diagnosis", "5,5", "'5,5' is not a number; write it with a decimal point"),
        ("Age at diagnosis", "1,000", "write it with a decimal point and without thousands separators"),
        ("Age at diagnosis", "old", "'old' is not a number"),
        ("Age at diagnosis", "1e999", "'1e999' is too large a number"),
        ("Number of positive", "2.5", "expected a whole number from 1 to 60 nodes"),
    ],
)
def test_a_value_that_the_server_would_refuse_is_not_sent(
    open_page: Open, site: ServerProcess, description: ModelDescription, label: str, value: str, text: str
) -> None:
    opened = open_page(site.http_url)
    page = visit(opened)
    enter(page, description, PATIENT)
    field = page.locator(".patient-form").get_by_label(label)
    field.fill(value)
    field.press("Enter")
    expect(field).to_be_focused()
    expect(field).to_have_attribute("aria-invalid", "true")
    assert text in remark(page, label)
    assert not any(":predictRisk" in url for url in opened.requests)


def test_a_result_of_earlier_values_says_so(page: Page, description: ModelDescription) -> None:
    enter(page, description, PATIENT)
    predict(page)
    stale = page.get_by_text("The values have changed since this result was computed.").first
    expect(stale).to_be_hidden()
    enter(page, description, {"age": 60})
    expect(stale).to_be_visible()
    predict(page)
    expect(stale).to_be_hidden()
    page.get_by_role("button", name="Clear", exact=True).click()
    expect(page.locator(".patient-risks")).to_have_count(0)
    expect(page.locator(".patient-form").get_by_label("Age at diagnosis")).to_have_value("")


def test_a_result_of_values_that_changed_while_it_was_computed_says_so(
    page: Page, site: ServerProcess, description: ModelDescription
) -> None:
    enter(page, description, PATIENT)
    # In one script, so that the value changes before the response can arrive.
    page.locator(".patient-form").evaluate("""form => {
        form.requestSubmit();
        const age = form.querySelector("input[type=text]");
        age.value = "60";
        age.dispatchEvent(new Event("input", { bubbles: true }));
    }""")
    expect(page.locator(".patient-risks")).to_be_visible()
    expected = answer(site, PATIENT).results[0].risks[0].risk
    assert numbers(page, ".patient-risks")[0] == pytest.approx(expected, abs=1e-9)
    notes = page.get_by_text("The values have changed since this result was computed.")
    expect(notes.filter(visible=True)).to_have_count(2)  # above the result, and above the what-if sliders


def test_only_what_is_certain_is_shown_as_certain(page: Page) -> None:
    script = "values => import('./language.js').then(({ percent }) => values.map((value) => percent(value)))"
    shown = page.evaluate(script, [-0.0006, -0.0004, -0.0, 0, 0.0004, 0.0006, 0.9994, 0.9996, 1])
    assert shown == ["-0.1%", ">-0.1%", "0.0%", "0.0%", "<0.1%", "0.1%", "99.9%", ">99.9%", "100.0%"]


def test_everything_works_by_keyboard(page: Page, site: ServerProcess) -> None:
    page.locator(".patient-form").get_by_label("Age at diagnosis").focus()
    keyboard = page.keyboard
    keyboard.type("45")
    keyboard.press("Tab")  # on the checked category of menopause, "not known"
    keyboard.press("ArrowUp")
    for typed in ("20", "", "2"):
        keyboard.press("Tab")
        keyboard.type(typed)
    keyboard.press("Enter")
    expect(page.locator(".patient-risks")).to_be_visible()
    patient: dict[str, FeatureValue] = {"age": 45, "menopause": "post", "tumor_size": 20, "positive_nodes": 2}
    (expected,) = answer(site, patient).results
    assert numbers(page, ".patient-risks")[0] == pytest.approx(expected.risks[0].risk, abs=1e-9)


def test_another_language_keeps_what_was_entered(page: Page, description: ModelDescription) -> None:
    enter(page, description, PATIENT | {"age": 95})
    predict(page)
    risks = numbers(page, ".patient-risks")
    page.locator("#language").select_option("zh")
    expect(page.get_by_role("heading", name="生存曲线")).to_be_visible()
    assert numbers(page, ".patient-risks") == risks
    expect(page.locator(".patient-form").get_by_label("Age at diagnosis")).to_have_value("95")
    expect(page.locator(".patient-warnings")).to_contain_text("95 years 超出训练数据范围")
    expect(page.get_by_role("button", name="预测风险")).to_be_visible()


def test_patient_data_is_neither_stored_nor_in_the_address(page: Page, description: ModelDescription) -> None:
    enter(page, description, PATIENT)
    before = page.url
    predict(page)
    assert page.url == before
    assert page.context.storage_state() == {"cookies": [], "origins": []}
    assert page.evaluate("async () => [sessionStorage.length, await indexedDB.databases()]") == [0, []]
    page.goto(f"{before.partition('#')[0]}#/")
    expect(page.locator(".patient-form")).to_have_count(0)
    page.go_back()
    expect(page.locator(".patient-form").get_by_label("Age at diagnosis")).to_have_value("")


@pytest.mark.parametrize(("language", "theme", "size"), [("en", "light", "desktop"), ("zh", "dark", "phone")])
def test_the_view_is_accessible(
    open_page: Open, site: ServerProcess, description: ModelDescription, language: str, theme: str, size: str
) -> None:
    page = visit(open_page(site.http_url, language=language, theme=theme, size=size))
    enter(page, description, PATIENT | {"age": 95, "grade": None})
    predict(page)
    page.locator(".patient-slider input[type=range]").first.press("ArrowLeft")
    expect(page.locator(".patient-comparison")).to_be_visible()
    for summary in page.locator("main summary").all():
        summary.click()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_result_prints_on_one_page(page: Page, description: ModelDescription) -> None:
    enter(page, description, {"age": 95, "positive_nodes": 55})
    predict(page)
    pdf = page.pdf(format="A4", prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) == 1
