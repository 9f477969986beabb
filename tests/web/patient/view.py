"""The patient view as its user works with it."""

from collections.abc import Mapping

from medserve_client import Client, FeatureValue, ModelDescription
from web.browser import Opened, Page, expect, shown

MODEL = "breast-cancer-risk"


def describe(target: str) -> ModelDescription:
    """Returns the manifest of the model in the view."""
    with Client(target) as client:
        return client.describe(MODEL)


def visit(opened: Opened, model: str = MODEL) -> Page:
    """Opens the view of a patient risk model."""
    page = opened.visit(f"/#/models/{model}/1")
    expect(page.locator(".patient-form")).to_be_visible()
    shown(page)
    return page


def enter(page: Page, description: ModelDescription, patient: Mapping[str, FeatureValue]) -> None:
    """Enters the values of a patient; None leaves a control as it is."""
    form = page.locator(".patient-form")
    for feature in description.manifest.patient_risk.features:
        value = patient.get(feature.name)
        if value is None:
            continue
        if feature.HasField("categorical"):
            group = form.get_by_role("radiogroup", name=feature.description)
            group.get_by_role("radio", name=str(value), exact=True).check()
        else:
            form.get_by_label(feature.description).fill(str(value))


def predict(page: Page) -> None:
    """Sends the form and waits for the result."""
    page.locator(".patient-form button[type=submit]").click()
    expect(page.locator(".patient-risks")).to_be_visible()
    expect(page.locator(".patient-result")).not_to_have_attribute("aria-busy", "true")


def numbers(page: Page, selector: str) -> list[float]:
    """Returns the unrounded numbers behind the texts in a part of the page."""
    return [float(data.get_attribute("value") or "nan") for data in page.locator(f"{selector} data").all()]
