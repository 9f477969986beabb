from typing import Literal

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from rich.console import Console
from sksurv.linear_model import CoxPHSurvivalAnalysis
from sksurv.util import Surv

from medserve_training.data.background import SIZE, background
from medserve_training.data.encoding import clinical_terms, piecewise_terms
from medserve_training.data.patient_data import load_cohort, load_patients
from medserve_training.data.schema import Number, Schema, Transform
from medserve_training.data.splits import Patients, Splits, take
from medserve_training.errors import UserError
from medserve_training.metrics.baseline_hazard import breslow, cohort_logits, refit_logits
from medserve_training.networks.risk.preparation import Encoding, Preparation
from medserve_training.networks.risk.projection import ProjectionCnn
from medserve_training.networks.risk.survival import RiskModel, SurvivalGraph, baseline_risk_cnn
from medserve_training.recipes.network_settings import ProjectionRiskCnn
from medserve_training.recipes.recipe import SurvivalTask, load_recipe
from medserve_training.training.losses import hazard_targets
from medserve_training.training.train_risk import train_survival

PATIENT = [55.0, 1, 25, 1, 3, 30, 40, 0]


@pytest.fixture(scope="module")
def cohort() -> tuple[Patients, Schema]:
    return load_cohort(load_recipe("breast-cancer-risk"))


def trained(data: Splits[Patients], schema: Schema, *overrides: str) -> SurvivalGraph:
    recipe = load_recipe("breast-cancer-risk", ["training.epochs=2", "training.members=2", *overrides])
    assert isinstance(recipe.task, SurvivalTask)
    fabric = Fabric(accelerator="cpu", devices=1)
    return train_survival(recipe, recipe.task, data, schema, fabric, Console(quiet=True))[0].eval()


def survival(model: SurvivalGraph, rows: Patients) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.from_numpy(rows.features))[0]
    return found


def test_the_clinical_columns_are_those_of_sauerbrei_and_royston(cohort: tuple[Patients, Schema]) -> None:
    _, schema = cohort
    names = [feature.name for feature in schema.features]
    columns = Encoding(clinical_terms(schema), names)(torch.tensor([PATIENT, [40.0, 0, 10, 2, 1, 0, 0, 1]]))
    # By kind: the exponential, logarithms and segments by name, the square.
    logs = [[np.log(41), np.log(3), np.log(31), np.log(25)], [0, 0, 0, np.log(10)]]
    for row, nodes in enumerate([3, 1]):
        assert columns[row, 0].item() == pytest.approx(np.exp(-0.12 * nodes))
        np.testing.assert_allclose(columns[row, 1:5], logs[row], rtol=1e-6)
    # Age, min(age, 45), grade II or above, grade III, hormones, menopause.
    assert sorted(columns[0, 5:11].tolist()) == sorted([55, 45, 1, 1, 0, 1])
    assert columns[:, 11].tolist() == [25, 100]
    assert columns.shape[1] == 12


def test_piecewise_columns_add_up_to_the_covariate_within_its_bins(cohort: tuple[Patients, Schema]) -> None:
    train, schema = cohort
    terms = [term for term in piecewise_terms(schema, train, 4) if term.feature == "age"]
    edges = np.quantile(train.features[:, 0], [0.25, 0.5, 0.75])
    assert [term.high for term in terms[:3]] == [term.low for term in terms[1:]] == edges.tolist()
    columns = Encoding(terms, ["age"])(torch.tensor([[21.0], [47.0], [80.0]])).numpy()
    offset = sum(edges)
    np.testing.assert_allclose(columns.sum(axis=1) - offset, [21, 47, 80], atol=1e-4)


@pytest.mark.parametrize("encoding", ["clinical", "piecewise-linear"])
def test_the_order_of_the_covariates_changes_nothing(encoding: str, cohort: tuple[Patients, Schema]) -> None:
    patients, schema = cohort
    order = np.random.default_rng(0).permutation(len(schema.features))
    shuffled = Schema(schema.outcome, tuple(schema.features[index] for index in order))
    curves = []
    for part, described in ((patients, schema), (patients._replace(features=patients.features[:, order]), shuffled)):
        rows = take(part, np.arange(200))
        curves.append(survival(trained(Splits(rows, rows, rows), described, f"network.encoding={encoding}"), rows))
    torch.testing.assert_close(*curves, rtol=0, atol=0)


def test_preprocessing_standardizes_the_training_split_and_clips_the_rest() -> None:
    train = np.random.default_rng(0).normal(7, 3, (200, 2)).astype(np.float32)
    prepare = Preparation(train, np.array([5.0, np.nan]), torch.nn.Identity(), limit=4)
    columns = prepare(torch.from_numpy(train))
    torch.testing.assert_close(columns.mean(dim=0), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(columns.std(dim=0, correction=0), torch.ones(2), atol=1e-3, rtol=0)
    extreme = prepare(torch.tensor([[1e6, 7.0], [torch.nan, 7.0], [5.0, 7.0], [7.0, torch.nan]]))
    assert extreme[0, 0] == 4
    torch.testing.assert_close(extreme[1], extreme[2])
    assert extreme[3].isnan().all()


def test_a_constant_column_becomes_zero() -> None:
    train = np.ones((5, 1), dtype=np.float32)
    assert Preparation(train, np.array([np.nan]), torch.nn.Identity())(torch.from_numpy(train)).eq(0).all()


@pytest.mark.parametrize(("effect", "rank"), [("constant", 1), ("fading", 2), ("free", 12)])
def test_each_kind_of_effect_has_its_course_over_time(effect: Literal["constant", "fading", "free"], rank: int) -> None:
    torch.manual_seed(0)
    network = ProjectionCnn(ProjectionRiskCnn("projection-risk-cnn", effect=effect), 5, 12).eval()
    assert network(torch.randn(4, 5)).eq(0).all(), "an untrained network predicts the baseline"
    torch.nn.init.normal_(network.effects.weight)
    with torch.no_grad():
        logits = network(torch.randn(50, 5))
    assert torch.linalg.matrix_rank(logits, rtol=1e-4) == rank


def model(network: torch.nn.Module, outputs: int) -> RiskModel:
    prepare = Preparation(np.eye(8, dtype=np.float32), np.full(8, np.nan), torch.nn.Identity())
    return RiskModel(prepare, network, torch.linspace(-2, 1, outputs))


def test_survival_is_the_product_of_one_minus_the_hazards() -> None:
    members = [model(baseline_risk_cnn(8, 12), 12) for _ in range(3)]
    features = torch.randn(5, 8)
    graph = SurvivalGraph(members, proportional=False)
    mean, each = graph(features)
    assert graph.names == ["survival", "member_survival"]
    for position, member in enumerate(members):
        hazards = torch.sigmoid(member(features))
        expected = torch.cumprod(torch.cat([torch.ones(5, 1), 1 - hazards], dim=1), dim=1)
        torch.testing.assert_close(each[:, position], expected)
    torch.testing.assert_close(mean, each.mean(dim=1))


def test_with_proportional_hazards_the_log_survival_ratio_is_constant() -> None:
    member = model(baseline_risk_cnn(8, 1), 12)
    (curves,) = SurvivalGraph([member], proportional=True)(torch.randn(2, 8))
    ratio = torch.log(curves[0, 1:]) / torch.log(curves[1, 1:])
    torch.testing.assert_close(ratio, ratio[:1].expand(12))


def test_the_refitted_baseline_predicts_the_observed_hazards() -> None:
    random = np.random.default_rng(0)
    times, seen = random.exponential(6, 400), random.random(400) < 0.6
    events, at_risk = hazard_targets(times, seen, 1, 8)
    logits = cohort_logits(events, at_risk) + torch.from_numpy(random.normal(0, 1.5, (400, 1))).float() - 0.7
    hazards = torch.sigmoid(logits + refit_logits(logits, events, at_risk)) * at_risk
    torch.testing.assert_close(hazards.sum(dim=0), events.sum(dim=0), rtol=1e-4, atol=1e-3)


def test_breslows_baseline_matches_scikit_survival(cohort: tuple[Patients, Schema]) -> None:
    patients, _ = cohort
    columns = patients.features[:, [4]].astype(np.float64)
    fitted = CoxPHSurvivalAnalysis().fit(columns, Surv.from_arrays(patients.events, patients.times))
    ends = np.array([300.0, 800, 1500])
    found = breslow(
        torch.from_numpy(columns @ fitted.coef_),
        torch.tensor(patients.times),
        torch.from_numpy(patients.events.astype(float)),
        torch.from_numpy(ends),
    )
    expected = fitted.cum_baseline_hazard_(ends)
    np.testing.assert_allclose(found.exp().cumsum(dim=0).numpy(), expected, rtol=1e-5)


def test_a_cox_network_learns_and_predicts_a_survival_function() -> None:
    data, schema = load_patients(load_recipe("breast-cancer-risk"))
    graph = trained(data, schema, "training.loss=cox", "training.batch_size=480", "training.epochs=30")
    risk = 1 - survival(graph, data.train)[:, 10]
    assert np.corrcoef(risk, np.log(data.train.features[:, 4]))[0, 1] > 0.5
    observed = 1 - 0.5
    assert risk.mean().item() == pytest.approx(observed, abs=0.08)


def test_novelty_is_high_for_a_patient_unlike_the_others() -> None:
    data, schema = load_patients(load_recipe("breast-cancer-risk"))
    graph = trained(data, schema)
    odd = torch.tensor([PATIENT, [22.0, 1, 110, 0, 50, 2000, 0, 1]])
    with torch.no_grad():
        scores = graph(odd)[2]
        usual = graph(torch.from_numpy(data.test.features))[2]
    threshold = usual.quantile(0.97)
    assert scores[0] < threshold < scores[1]


def test_the_background_is_synthetic_and_represents_the_cohort(cohort: tuple[Patients, Schema]) -> None:
    train, schema = cohort

    def curves(
        rows: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        risk = rows[:, 4] / 60
        return np.stack([np.ones(len(rows)), 1 - risk], axis=1).astype(np.float32)

    rows = background(train, schema, curves, seed=1)
    assert rows.shape == (SIZE, 8)
    assert not {row.tobytes() for row in rows} & {row.tobytes() for row in train.features}
    for feature, column, seen in zip(schema.features, rows.T, train.features.T, strict=True):
        assert seen.min() <= column.min() <= column.max() <= seen.max(), feature.name
    np.testing.assert_allclose(curves(rows).mean(axis=0), curves(train.features).mean(axis=0), atol=0.01)
    np.testing.assert_array_equal(rows, background(train, schema, curves, seed=1))


def test_a_logarithm_of_a_value_that_may_be_zero_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"'size' may be 0, where ln\(x \+ 0\) is not defined"):
        Number("size", "size", "a size", "mm", 0, 10, transforms=(Transform("log"),))


def test_class_settings_are_rejected_for_survival() -> None:
    with pytest.raises(UserError, match="the loss 'cox' has none"):
        load_recipe("breast-cancer-risk", ["training.loss=cox", "training.label_smoothing=0.1"])
