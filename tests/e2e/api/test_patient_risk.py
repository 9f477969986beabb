"""medserve.v1.PatientRisk with the real server and the model of the repository."""

from collections.abc import Iterator

import grpc
import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calls.bad_request import code_of, violations
from medserve_proto.v1 import patient_risk_pb2 as pb
from medserve_proto.v1.patient_risk_pb2_grpc import PatientRiskStub
from servers.server_process import REPOSITORY

MODEL = "breast-cancer-risk"
PATIENT: dict[str, float | str | None] = {
    "age": 55,
    "menopause": "post",
    "tumor_size": 25,
    "grade": "II",
    "positive_nodes": 3,
    "progesterone_receptor": 30,
    "estrogen_receptor": 40,
    "hormone_therapy": "no",
}
CATEGORIES = {"menopause": ["pre", "post"], "grade": ["I", "II", "III"], "hormone_therapy": ["no", "yes"]}


@pytest.fixture(scope="module")
def stub(channel: grpc.Channel) -> PatientRiskStub:
    return PatientRiskStub(channel)


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(REPOSITORY / f"models/{MODEL}/1/model.onnx", providers=["CPUExecutionProvider"])


def entry(name: str, value: float | str | None) -> pb.FeatureEntry:
    if value is None:
        return pb.FeatureEntry(key=name, value=pb.FeatureValue())
    if isinstance(value, str):
        return pb.FeatureEntry(key=name, value=pb.FeatureValue(category=value))
    return pb.FeatureEntry(key=name, value=pb.FeatureValue(number=value))


def patient(**changes: float | str | None) -> pb.Patient:
    return pb.Patient(features=[entry(name, value) for name, value in (PATIENT | changes).items()])


def predict(stub: PatientRiskStub, *patients: pb.Patient) -> pb.PredictResponse:
    return stub.Predict(pb.PredictRequest(model_name=MODEL, patients=patients, request_id="r-1"))


def without(*names: str) -> pb.Patient:
    return pb.Patient(features=[entry(name, value) for name, value in PATIENT.items() if name not in names])


def row(values: dict[str, float | str | None]) -> list[float]:
    """Returns the expected tensor of a patient."""
    numbers = []
    for name in PATIENT:
        value = values[name]
        number = CATEGORIES[name].index(value) if isinstance(value, str) else np.nan if value is None else value
        numbers.append(float(number))
    return numbers


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "age": st.floats(20, 90),
                "menopause": st.sampled_from(CATEGORIES["menopause"]) | st.none(),
                "tumor_size": st.floats(1, 200) | st.none(),
                "grade": st.sampled_from(CATEGORIES["grade"]) | st.none(),
                "positive_nodes": st.integers(1, 50),
                "progesterone_receptor": st.floats(0, 3000) | st.none(),
                "estrogen_receptor": st.floats(0, 3000) | st.none(),
                "hormone_therapy": st.sampled_from(CATEGORIES["hormone_therapy"]) | st.none(),
            }
        ),
        min_size=1,
        max_size=20,
    )
)
def test_risks_equal_the_output_of_onnx_runtime(
    stub: PatientRiskStub, session: onnxruntime.InferenceSession, patients: list[dict[str, float | str | None]]
) -> None:
    response = predict(stub, *(patient(**values) for values in patients))
    features = np.array([row(values) for values in patients], np.float32)
    (survival,) = session.run(["survival"], {"features": features})
    for result, curve, values in zip(response.results, survival, patients, strict=True):
        np.testing.assert_allclose(result.survival.probabilities, curve, atol=1e-6)
        risks = {entry.horizon: entry for entry in result.risks}
        assert list(risks) == ["1 year", "3 years", "5 years"]
        for risk in risks.values():
            position = list(result.survival.times).index(risk.time)
            assert risk.risk == pytest.approx(1 - curve[position], abs=1e-6)
        assert result.risk_group in {"low", "intermediate", "high"}
        imputed = [w.feature for w in result.warnings if w.kind == pb.PatientWarning.KIND_IMPUTED]
        assert imputed == [name for name in PATIENT if values[name] is None]


def test_typical_patient_has_no_warning(stub: PatientRiskStub) -> None:
    response = predict(stub, patient())
    assert (response.model_name, response.model_version, response.request_id) == (MODEL, "1", "r-1")
    assert not response.results[0].warnings


def test_missing_value_is_reported_in_every_representation(stub: PatientRiskStub) -> None:
    unset, absent = predict(stub, patient(grade=None), without("grade")).results
    assert unset == absent
    (warning,) = absent.warnings
    assert (warning.kind, warning.feature) == (pb.PatientWarning.KIND_IMPUTED, "grade")
    assert warning.message == "grade is missing; the model assumed II"


def test_value_outside_the_training_range_causes_a_warning(stub: PatientRiskStub) -> None:
    (result,) = predict(stub, patient(age=95)).results
    (warning,) = [
        w for w in result.warnings if w.feature
    ]  # a patient of this age also has a novelty warning, without a feature
    assert (warning.kind, warning.feature) == (pb.PatientWarning.KIND_OUT_OF_TRAINING_RANGE, "age")
    assert warning.message == "age 95 years is outside the range of the training data, 21 to 80"


BAD_PATIENTS = {
    "unknown feature": (patient(agee=5), "agee", "did you mean age?"),
    "missing": (without("age"), "age", "is missing; expected a number from 18 to 110 years"),
    "missing, unset": (patient(positive_nodes=None), "positive_nodes", "is missing"),
    "given twice": (pb.Patient(features=[*patient().features, entry("age", 60)]), "age", "is given twice"),
    "below the range": (patient(age=-3), "age", "is -3, expected a number from 18 to 110 years"),
    "above the range": (patient(tumor_size=1000), "tumor_size", "is 1000, expected"),
    "NaN": (patient(age=float("nan")), "age", "is nan"),
    "infinity": (patient(estrogen_receptor=float("inf")), "estrogen_receptor", "is inf"),
    "minus infinity": (patient(estrogen_receptor=float("-inf")), "estrogen_receptor", "is -inf"),
    "fraction of a node": (patient(positive_nodes=2.5), "positive_nodes", "expected a whole number"),
    "unknown category": (patient(grade="IV"), "grade", "is 'IV', expected one of I, II, III"),
    "number for a category": (patient(grade=2), "grade", "is 2, expected one of I, II, III"),
    "text for a number": (patient(age="fifty"), "age", "is 'fifty', expected a number"),
}


@pytest.mark.parametrize("name", BAD_PATIENTS)
def test_invalid_patient_is_refused_with_the_feature(stub: PatientRiskStub, name: str) -> None:
    bad, feature, text = BAD_PATIENTS[name]
    with pytest.raises(grpc.RpcError) as caught:
        predict(stub, patient(), bad, patient())
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    (found,) = violations(caught.value).items()
    assert found[0] == f"patients[1].features[{feature}]"
    assert text in found[1]
    assert predict(stub, patient()).results, "the server still responds"


def test_all_invalid_values_of_a_request_are_reported(stub: PatientRiskStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        predict(stub, patient(age=-1, grade="X"), patient(), patient(agee=1))
    assert list(violations(caught.value)) == [
        "patients[0].features[age]",
        "patients[0].features[grade]",
        "patients[2].features[agee]",
    ]


def test_list_of_many_invalid_values_is_truncated(stub: PatientRiskStub) -> None:
    """Clients reject errors with more than a few KiB of details."""
    with pytest.raises(grpc.RpcError) as caught:
        predict(stub, *([patient(age=-1)] * 2000))
    assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    found = violations(caught.value)
    assert list(found)[:10] == [f"patients[{index}].features[age]" for index in range(10)]
    assert sum(len(field) + len(text) for field, text in found.items()) < 5000


def test_request_without_patients_is_refused(stub: PatientRiskStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        predict(stub)
    assert violations(caught.value) == {"patients": "has 0 entries, expected 1 to 4096"}


def test_stream_preserves_order_and_survives_an_invalid_patient(stub: PatientRiskStub) -> None:
    def requests() -> Iterator[pb.PredictRequest]:
        for index in range(60):
            bad = patient(age=200 if index % 7 == 2 else 30 + index / 2)
            yield pb.PredictRequest(model_name=MODEL, patients=[bad], request_id=str(index))

    responses = list(stub.PredictStream(requests()))
    assert [response.request_id for response in responses] == [str(index) for index in range(60)]
    for index, response in enumerate(responses):
        assert response.WhichOneof("outcome") == ("error" if index % 7 == 2 else "response")
