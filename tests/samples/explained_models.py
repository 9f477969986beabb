"""Small models with every explanation output, whose results NumPy can compute."""

import numpy as np
import onnx
from google.protobuf import json_format
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from medserve_proto.v1 import manifest_pb2 as pb
from samples import onnx_models

HEIGHT, WIDTH = 14, 21
LABELS = ["clear", "lesion"]
BRIGHT = 200.0
# Weight of each pixel's brightness in the probability of a lesion; the sum is at most 0.9.
PLACES = np.random.default_rng(0).random((HEIGHT, WIDTH)) ** 4
PLACES = (0.9 * PLACES / PLACES.sum()).astype(np.float32)
MEMBERS = np.array([0.5, 1.0, 1.5], np.float32)

FEATURES = ["age", "size", "grade", "nodes"]
IMPUTED_SIZE = 25.0
SCORE = np.array([0.02, 0.03, 0.4, 0.1], np.float32)
HAZARDS = np.array([0.0, 0.01, 0.03], np.float32)
TIMES = [0.0, 365.0, 1826.0]
BACKGROUND = [[40, 10, 0, 0], [50, 20, 1, 1], [60, 30, 2, 2], [70, 20, 1, 10], [50, 20, 1, 1]]
OLD = 40.0


def constant(name: str, values: NDArray[np.generic]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values))


def with_manifest(model: onnx.ModelProto, manifest: pb.Manifest) -> onnx.ModelProto:
    text = json_format.MessageToJson(manifest, preserving_proto_field_name=True)
    model.metadata_props.add(key="medserve.manifest", value=text)
    return model


def lesions(manifest: pb.Manifest | None = None) -> onnx.ModelProto:
    """p(lesion) = sum of PLACES * pixel / 255; novelty is the mean pixel; the activation of a place its 7 x 7 mean."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        constant("white", np.array(255, np.float32)),
        helper.make_node("Div", ["pixels", "white"], ["bright"]),
        constant("places", PLACES[..., None]),
        helper.make_node("Mul", ["bright", "places"], ["weighted"]),
        constant("space", np.array([1, 2, 3])),
        helper.make_node("ReduceSum", ["weighted", "space"], ["flat"], keepdims=0),
        constant("last", np.array([1])),
        helper.make_node("Unsqueeze", ["flat", "last"], ["lesion"]),
        constant("one", np.array(1, np.float32)),
        helper.make_node("Sub", ["one", "lesion"], ["clear"]),
        helper.make_node("Concat", ["clear", "lesion"], ["probabilities"], axis=1),
        constant("weights", MEMBERS[:, None]),
        helper.make_node("Unsqueeze", ["probabilities", "last"], ["single"]),
        helper.make_node("Mul", ["single", "weights"], ["member_probabilities"]),
        helper.make_node("ReduceMean", ["pixels", "space"], ["novelty"], keepdims=0),
        helper.make_node("Transpose", ["bright"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["feature_map.pool"], kernel_shape=[7, 7], strides=[7, 7]),
        helper.make_node("Neg", ["feature_map.pool"], ["against"]),
        helper.make_node("Concat", ["against", "feature_map.pool"], ["class_activation"], axis=1),
    ]
    model = onnx_models.make(
        nodes,
        {"image": (TensorProto.UINT8, ["batch", HEIGHT, WIDTH, 1])},
        {
            "probabilities": (TensorProto.FLOAT, ["batch", 2]),
            "member_probabilities": (TensorProto.FLOAT, ["batch", 3, 2]),
            "novelty": (TensorProto.FLOAT, ["batch"]),
            "class_activation": (TensorProto.FLOAT, ["batch", 2, 2, 3]),
            "feature_map.pool": (TensorProto.FLOAT, ["batch", 1, 2, 3]),
        },
    )
    return with_manifest(model, manifest or lesions_manifest())


def lesions_manifest() -> pb.Manifest:
    return pb.Manifest(
        schema_version=1,
        name="lesions",
        image_classification=pb.ImageClassificationTask(
            input=pb.ImageInput(
                height=HEIGHT,
                width=WIDTH,
                color_space=pb.COLOR_SPACE_GRAY,
                crop=pb.CROP_NONE,
                resampling=pb.RESAMPLING_BILINEAR,
            ),
            labels=LABELS,
            members=3,
            novelty=pb.Novelty(method="mean pixel", threshold=BRIGHT),
            class_activation=pb.MapSize(height=2, width=3),
            feature_maps=[pb.FeatureMap(layer="pool", channels=1, size=pb.MapSize(height=2, width=3))],
        ),
    )


def plain_lesions_manifest() -> pb.Manifest:
    """Returns the manifest of the same model without its explanation outputs."""
    manifest = lesions_manifest()
    for field in ("members", "novelty", "class_activation", "feature_maps"):
        manifest.image_classification.ClearField(field)
    return manifest


def lesion_probability(images: NDArray[np.generic]) -> NDArray[np.float64]:
    """Returns the output of `lesions` for images [..., HEIGHT, WIDTH]."""
    return np.asarray((images.astype(np.float64) / 255 * PLACES).sum(axis=(-2, -1)))


def decay(manifest: pb.Manifest | None = None) -> onnx.ModelProto:
    """survival = exp(-hazard * exp(score)), whose score has a product of two features; novelty is |age - 50|."""
    nodes = [
        helper.make_node("IsNaN", ["features"], ["missing"]),
        constant("imputed", np.array([0, IMPUTED_SIZE, 0, 0], np.float32)),
        helper.make_node("Where", ["missing", "imputed", "features"], ["x"]),
        constant("weights", SCORE[:, None]),
        helper.make_node("MatMul", ["x", "weights"], ["linear"]),
        helper.make_node("Split", ["x"], ["age", "size", "grade", "nodes"], axis=1, num_outputs=4),
        helper.make_node("Mul", ["size", "nodes"], ["product"]),
        constant("tiny", np.array(0.001, np.float32)),
        helper.make_node("Mul", ["product", "tiny"], ["interaction"]),
        helper.make_node("Add", ["linear", "interaction"], ["score"]),
        helper.make_node("Exp", ["score"], ["factor"]),
        constant("hazards", -HAZARDS[None]),
        helper.make_node("Mul", ["factor", "hazards"], ["exponent"]),
        helper.make_node("Exp", ["exponent"], ["survival"]),
        constant("first", np.array([1])),
        helper.make_node("Unsqueeze", ["survival", "first"], ["single"]),
        constant("members", np.array([[0.75], [1.25]], np.float32)),
        helper.make_node("Mul", ["single", "members"], ["member_survival"]),
        constant("middle", np.array(50, np.float32)),
        helper.make_node("Sub", ["age", "middle"], ["distance"]),
        helper.make_node("Abs", ["distance"], ["far"]),
        helper.make_node("Squeeze", ["far", "first"], ["novelty"]),
    ]
    model = onnx_models.make(
        nodes,
        {"features": (TensorProto.FLOAT, ["batch", 4])},
        {
            "survival": (TensorProto.FLOAT, ["batch", 3]),
            "member_survival": (TensorProto.FLOAT, ["batch", 2, 3]),
            "novelty": (TensorProto.FLOAT, ["batch"]),
        },
    )
    return with_manifest(model, manifest or decay_manifest())


def decay_manifest() -> pb.Manifest:
    return pb.Manifest(
        schema_version=1,
        name="decay",
        patient_risk=pb.PatientRiskTask(
            features=[
                pb.Feature(name="age", unit="years", required=True, numeric=_range(18, 110, 21, 80, integer=True)),
                pb.Feature(name="size", unit="mm", imputed_as=IMPUTED_SIZE, numeric=_range(1, 300, 3, 120)),
                pb.Feature(name="grade", imputed_as=0, categorical=pb.Categories(names=["I", "II", "III"])),
                pb.Feature(name="nodes", imputed_as=0, numeric=_range(0, 60, 0, 12, integer=True)),
            ],
            event="relapse",
            time_unit="days",
            curve_times=TIMES,
            horizons=[pb.Horizon(label="1 year", time=TIMES[1]), pb.Horizon(label="5 years", time=TIMES[2])],
            risk_groups=[pb.RiskGroup(label="any", risk_below=1.1)],
            reference_horizon="5 years",
            background=[pb.BackgroundPatient(features=row) for row in BACKGROUND],
            members=2,
            novelty=pb.Novelty(method="distance from 50 years", threshold=OLD),
        ),
    )


def plain_decay_manifest() -> pb.Manifest:
    """Returns the manifest of the same model without its explanation outputs."""
    manifest = decay_manifest()
    for field in ("members", "novelty", "background"):
        manifest.patient_risk.ClearField(field)
    return manifest


def _range(
    low: float, high: float, training_low: float, training_high: float, *, integer: bool = False
) -> pb.NumericRange:
    return pb.NumericRange(
        valid_min=low, valid_max=high, training_min=training_low, training_max=training_high, integer=integer
    )


def decay_risk(rows: NDArray[np.generic], column: int) -> NDArray[np.float64]:
    """Returns the output of `decay` for rows [..., 4] at a time of the curve."""
    x = np.where(np.isnan(rows), [0, IMPUTED_SIZE, 0, 0], rows).astype(np.float64)
    score = x @ SCORE.astype(np.float64) + 0.001 * x[..., 1] * x[..., 3]
    return np.asarray(1 - np.exp(-HAZARDS[column].astype(np.float64) * np.exp(score)))
