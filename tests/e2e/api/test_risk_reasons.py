"""Explanations of a patient's risk, by the real server and a model whose results are known."""

import itertools
import math
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from calls.bad_request import code_of, violations
from medserve_proto.v1 import patient_risk_pb2 as pb
from medserve_proto.v1.patient_risk_pb2_grpc import PatientRiskStub
from samples import explained_models as known
from servers.server_process import ServerProcess

Row = list[float]
GRADES = ["I", "II", "III"]
BACKGROUND = np.array(known.BACKGROUND, np.float64)


@pytest.fixture(scope="module")
def stub(explaining: ServerProcess) -> Iterator[PatientRiskStub]:
    with grpc.insecure_channel(explaining.target) as channel:
        yield PatientRiskStub(channel)


def request(*rows: Row, reasons: pb.RiskReasons | None = None, model: str = "decay") -> pb.PredictRequest:
    patients = [
        pb.Patient(
            features=[
                pb.FeatureEntry(key=name, value=_value(name, number))
                for name, number in zip(known.FEATURES, row, strict=True)
            ]
        )
        for row in rows
    ]
    return pb.PredictRequest(model_name=model, patients=patients, reasons=reasons)


def _value(name: str, number: float) -> pb.FeatureValue:
    if math.isnan(number):
        return pb.FeatureValue()
    return pb.FeatureValue(category=GRADES[int(number)]) if name == "grade" else pb.FeatureValue(number=number)


def explain(stub: PatientRiskStub, row: Row, reasons: pb.RiskReasons) -> pb.PatientResult:
    (result,) = stub.Predict(request(row, reasons=reasons)).results
    return result


def slow_shapley(row: Row, column: int) -> NDArray[np.float64]:
    """Computes Shapley values by definition: the mean contribution of a feature over all orders of the features."""
    count = len(row)

    def value(coalition: tuple[int, ...]) -> float:
        mixed = BACKGROUND.copy()
        for feature in coalition:
            mixed[:, feature] = row[feature]
        return float(known.decay_risk(mixed, column).mean())

    found = np.zeros(count)
    for order in itertools.permutations(range(count)):
        for place, feature in enumerate(order):
            found[feature] += value(order[: place + 1]) - value(order[:place])
    return found / math.factorial(count)


ROWS = st.tuples(
    st.integers(18, 110).map(float),
    st.floats(1, 300, width=32) | st.just(math.nan),
    st.sampled_from([0.0, 1.0, 2.0, math.nan]),
    st.integers(0, 60).map(float) | st.just(math.nan),
).map(list)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROWS, min_size=1, max_size=4), st.sampled_from([("", 2), ("1 year", 1), ("5 years", 2)]))
def test_shapley_values_are_exact_and_sum_to_the_difference(
    stub: PatientRiskStub, rows: list[Row], horizon: tuple[str, int]
) -> None:
    label, column = horizon
    response = stub.Predict(request(*rows, reasons=pb.RiskReasons(horizon=label, shapley=True)))
    for row, result in zip(rows, response.results, strict=True):
        assert result.shapley.horizon == (label or "5 years")
        assert [one.feature for one in result.shapley.contributions] == known.FEATURES
        values = [one.value for one in result.shapley.contributions]
        (risk,) = [risk.risk for risk in result.risks if risk.horizon == result.shapley.horizon]
        assert result.shapley.base_risk == pytest.approx(known.decay_risk(BACKGROUND, column).mean(), abs=1e-5)
        assert result.shapley.base_risk + sum(values) == pytest.approx(risk, abs=1e-9)
        assert risk == pytest.approx(known.decay_risk(np.array(row), column), abs=1e-5)
        assert values == pytest.approx(slow_shapley(row, column), abs=1e-5)


def test_missing_value_contributes_as_imputed(stub: PatientRiskStub) -> None:
    missing, there = (
        explain(stub, [60, size, 1, 3], pb.RiskReasons(shapley=True)).shapley for size in (math.nan, known.IMPUTED_SIZE)
    )
    assert [one.value for one in missing.contributions] == pytest.approx([one.value for one in there.contributions])


def test_feature_equal_to_the_background_contributes_zero(stub: PatientRiskStub) -> None:
    result = explain(stub, BACKGROUND[1].tolist(), pb.RiskReasons(shapley=True))
    assert sum(abs(one.value) for one in result.shapley.contributions) > 0.01
    same = explain(stub, [50, 20, 1, 1], pb.RiskReasons(shapley=True))
    assert same == result


@pytest.mark.parametrize(
    ("what_if", "values"),
    [
        (pb.WhatIf(feature="size"), np.linspace(3, 120, 21)),
        (pb.WhatIf(feature="size", low=10, high=20, points=5), [10, 12.5, 15, 17.5, 20]),
        (pb.WhatIf(feature="size", low=115), np.linspace(115, 120, 21)),
        (pb.WhatIf(feature="age", low=30, high=32), [30, 31, 32]),
        (pb.WhatIf(feature="age", points=200), range(21, 81)),
        (pb.WhatIf(feature="nodes", high=60, points=3), [0, 30, 60]),
    ],
)
def test_what_if_curve_is_the_risk_at_other_values(
    stub: PatientRiskStub, what_if: pb.WhatIf, values: list[float]
) -> None:
    row = [60.0, math.nan, 2.0, 3.0]
    result = explain(stub, row, pb.RiskReasons(horizon="1 year", what_if=what_if))
    curve = result.what_if
    assert (curve.horizon, curve.feature) == ("1 year", what_if.feature)
    assert [point.value.number for point in curve.points] == pytest.approx(list(values))
    for point in curve.points:
        changed = row.copy()
        changed[known.FEATURES.index(what_if.feature)] = point.value.number
        assert point.risk == pytest.approx(known.decay_risk(np.array(changed), 1), abs=1e-5)


def test_what_if_curve_of_a_category_has_all_its_values(stub: PatientRiskStub) -> None:
    curve = explain(stub, [60, 20, 2, 3], pb.RiskReasons(what_if=pb.WhatIf(feature="grade"))).what_if
    assert [point.value.category for point in curve.points] == GRADES
    risks = known.decay_risk(np.array([[60, 20, grade, 3] for grade in range(3)]), 2)
    assert [point.risk for point in curve.points] == pytest.approx(risks, abs=1e-5)


def test_both_explanations_for_several_patients(stub: PatientRiskStub) -> None:
    rows = [[float(age), 20.0, 1.0, 2.0] for age in (30, 50, 70)]
    both = pb.RiskReasons(shapley=True, what_if=pb.WhatIf(feature="size", points=3))
    together = stub.Predict(request(*rows, reasons=both)).results
    for row, result in zip(rows, together, strict=True):
        alone = explain(stub, row, pb.RiskReasons(shapley=True)).shapley
        assert [one.value for one in result.shapley.contributions] == pytest.approx(
            [one.value for one in alone.contributions], abs=1e-6
        )
        for point in result.what_if.points:
            changed = np.array([row[0], point.value.number, row[2], row[3]])
            assert point.risk == pytest.approx(known.decay_risk(changed, 2), abs=1e-5)


def test_explanations_do_not_change_the_results(stub: PatientRiskStub) -> None:
    rows = [[30.0, 20.0, 1.0, 2.0], [95.0, math.nan, 2.0, 0.0]]
    requested = pb.RiskReasons(shapley=True, what_if=pb.WhatIf(feature="grade"))
    explained, plain = (stub.Predict(request(*rows, reasons=reasons)).results for reasons in (requested, None))
    for one, other in zip(explained, plain, strict=True):
        assert not other.HasField("shapley")
        one.ClearField("shapley")
        one.ClearField("what_if")
        assert one.SerializeToString() == other.SerializeToString()


def test_spread_and_novelty_are_always_returned(stub: PatientRiskStub) -> None:
    near, far = stub.Predict(request([45.0, 20.0, 1.0, 2.0], [95.0, 20.0, 1.0, 2.0])).results
    for risk in near.risks:
        assert risk.uncertainty == pytest.approx(0.25 * (1 - risk.risk), rel=1e-5)
    assert (near.novelty, far.novelty) == (5, 45)
    assert not near.warnings
    outside, unfamiliar = far.warnings
    assert outside.kind == pb.PatientWarning.KIND_OUT_OF_TRAINING_RANGE
    assert (unfamiliar.kind, unfamiliar.feature) == (pb.PatientWarning.KIND_UNFAMILIAR, "")
    assert unfamiliar.message == ("unlike the patients that the model was trained on: novelty 45, expected up to 40")
    (without,) = stub.Predict(request([95.0, 20.0, 1.0, 2.0], model="plain-decay")).results
    assert len(without.warnings) == 1
    assert not without.HasField("novelty")
    assert not without.risks[0].HasField("uncertainty")


def test_shapley_values_require_a_background(stub: PatientRiskStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request([60, 20, 1, 2], reasons=pb.RiskReasons(shapley=True), model="plain-decay"))
    assert code_of(caught) is grpc.StatusCode.FAILED_PRECONDITION
    assert "model plain-decay was exported without background patients" in str(caught.value)
    curve = pb.RiskReasons(what_if=pb.WhatIf(feature="grade"))
    (result,) = stub.Predict(request([60, 20, 1, 2], reasons=curve, model="plain-decay")).results
    assert len(result.what_if.points) == 3


INF, NAN = math.inf, math.nan
INVALID_REASONS: dict[str, tuple[pb.RiskReasons, str, str]] = {
    "unknown horizon": (pb.RiskReasons(horizon="2 years"), "horizon", "is '2 years', expected one of 1 year, 5 years"),
    "unknown feature": (
        pb.RiskReasons(what_if=pb.WhatIf(feature="siz")),
        "what_if.feature",
        "is not a feature of the model (did you mean size?); its features are age, size, grade, nodes",
    ),
    "no feature": (pb.RiskReasons(what_if=pb.WhatIf(points=5)), "what_if.feature", "is empty"),
    "one point": (pb.RiskReasons(what_if=pb.WhatIf(feature="age", points=1)), "what_if.points", "is 1, expected 2 to"),
    "too many points": (
        pb.RiskReasons(what_if=pb.WhatIf(feature="age", points=2**32 - 1)),
        "what_if.points",
        "is 4294967295, expected 2 to 200, or 0 for 21",
    ),
    "NaN": (pb.RiskReasons(what_if=pb.WhatIf(feature="size", low=NAN)), "what_if.low", "is nan, expected a number"),
    "infinity": (pb.RiskReasons(what_if=pb.WhatIf(feature="size", high=INF)), "what_if.high", "is inf, expected"),
    "below the valid range": (
        pb.RiskReasons(what_if=pb.WhatIf(feature="age", low=-3)),
        "what_if.low",
        "is -3, expected a whole number from 18 to 110 years",
    ),
    "above the valid range": (
        pb.RiskReasons(what_if=pb.WhatIf(feature="age", high=111)),
        "what_if.high",
        "is 111, expect",
    ),
    "fraction of a node": (
        pb.RiskReasons(what_if=pb.WhatIf(feature="nodes", high=2.5)),
        "what_if.high",
        "is 2.5, expected a whole number",
    ),
    "low above high": (
        pb.RiskReasons(what_if=pb.WhatIf(feature="size", low=20, high=10)),
        "what_if.high",
        "is 10, expected a value above low, 20",
    ),
    "empty range": (
        pb.RiskReasons(what_if=pb.WhatIf(feature="age", low=20, high=20)),
        "what_if.high",
        "is 20, expected",
    ),
    "above the training data": (
        pb.RiskReasons(what_if=pb.WhatIf(feature="age", low=100)),
        "what_if.high",
        "is 80, expected a value above low, 100",
    ),
    "range of a category": (
        pb.RiskReasons(what_if=pb.WhatIf(feature="grade", low=0)),
        "what_if.low",
        "is set, but grade is categorical; leave it unset",
    ),
}


@pytest.mark.parametrize("name", INVALID_REASONS)
def test_invalid_reasons_are_refused_with_their_field(stub: PatientRiskStub, name: str) -> None:
    requested, field, text = INVALID_REASONS[name]
    with pytest.raises(grpc.RpcError) as caught:
        explain(stub, [60, 20, 1, 2], requested)
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    ((found, description),) = violations(caught.value).items()
    assert found == f"reasons.{field}"
    assert text in description


@pytest.mark.parametrize(
    ("requested", "field", "rows"),
    [
        (pb.RiskReasons(shapley=True), "shapley", 10 * (1 + 5 * 16)),
        (pb.RiskReasons(what_if=pb.WhatIf(feature="size", points=40)), "what_if", 10 * (1 + 40)),
        (pb.RiskReasons(shapley=True, what_if=pb.WhatIf(feature="grade")), "shapley", 10 * (1 + 5 * 16 + 3)),
    ],
)
def test_explanation_exceeding_the_row_limit_is_refused(
    stub: PatientRiskStub, requested: pb.RiskReasons, field: str, rows: int
) -> None:
    patients = [[33.0, 33.0, NAN, 3.0]] * 10  # every feature differs from the background
    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(request(*patients, reasons=requested))
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    text = f"needs {rows} rows for 10 patients, at most 400 are computed per request; send fewer patients per request"
    assert violations(caught.value) == {f"reasons.{field}": text}


def test_stream_explains_only_requests_that_ask_for_it(stub: PatientRiskStub) -> None:
    requested = {0: None, 1: pb.RiskReasons(shapley=True), 2: pb.RiskReasons(horizon="never")}
    asked = (request([20.0 + index, 20, 1, 2], reasons=requested[index % 3]) for index in range(30))
    for index, response in enumerate(stub.PredictStream(asked)):
        match index % 3:
            case 0:
                assert not response.response.results[0].HasField("shapley")
            case 1:
                (result,) = response.response.results
                total = result.shapley.base_risk + sum(one.value for one in result.shapley.contributions)
                assert total == pytest.approx(known.decay_risk(np.array([20 + index, 20, 1, 2]), 2), abs=1e-5)
            case 2:
                assert "reasons.horizon: is 'never'" in response.error.message


def test_metrics_count_explanations(stub: PatientRiskStub, explaining: ServerProcess) -> None:
    def counted(reason: str) -> tuple[float, float]:
        series = f'{{model="decay",reason="{reason}",version="1"}}'
        return (
            explaining.sample(f"medserve_reasons_duration_seconds_count{series}"),
            explaining.sample(f"medserve_reason_rows_total{series}"),
        )

    requested = pb.RiskReasons(shapley=True, what_if=pb.WhatIf(feature="grade"))
    row = [33.0, 33.0, NAN, 3.0]
    explain(stub, row, requested)
    before = {reason: counted(reason) for reason in ("shapley", "what_if")}
    stub.Predict(request(row, row, reasons=requested))
    stub.Predict(request(row))
    rise = {reason: np.subtract(counted(reason), count).tolist() for reason, count in before.items()}
    assert rise == {"shapley": [1, 2 * 5 * 16], "what_if": [1, 2 * 3]}
