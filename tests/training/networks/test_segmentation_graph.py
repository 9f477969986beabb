import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnxruntime import InferenceSession
from torch import Tensor

from medserve_training.export.inference import open_session
from medserve_training.export.onnx_file import to_onnx
from medserve_training.networks.segmentation.segmenter import SegmentationGraph, Segmenter, novelty
from medserve_training.recipes.network_settings import UNet

SMALL = UNet("u-net", widths=(3, 4, 5))
STRIDE = 4


def segmenter(seed: int, outputs: int = 4, network: UNet = SMALL) -> Segmenter:
    torch.manual_seed(seed)
    member = Segmenter(network, 3, outputs)
    # Batch norms with nontrivial statistics.
    member(torch.rand(8, 16, 16, 3) * 255)
    return member.eval()


def pixels(height: int, width: int, number: int = 2) -> NDArray[np.uint8]:
    return np.random.default_rng(height * width).integers(0, 256, (number, height, width, 3), dtype=np.uint8)


@torch.no_grad()
def outputs(graph: SegmentationGraph, rows: NDArray[np.uint8]) -> dict[str, Tensor]:
    return dict(zip(graph.names, graph(torch.from_numpy(rows)), strict=True))


@pytest.fixture(scope="module")
def graph() -> SegmentationGraph:
    return SegmentationGraph([segmenter(0), segmenter(1)], 2).eval()


@pytest.fixture(scope="module")
def exported(graph: SegmentationGraph) -> onnx.ModelProto:
    example = torch.zeros(2, 8 * STRIDE, 6 * STRIDE, 3, dtype=torch.uint8)
    return to_onnx(graph, example, graph.names, STRIDE)


@pytest.fixture(scope="module")
def session(exported: onnx.ModelProto) -> InferenceSession:
    return open_session(exported.SerializeToString())


def test_batch_height_and_width_of_the_graph_are_free(exported: onnx.ModelProto) -> None:
    (image,) = exported.graph.input
    assert (image.name, image.type.tensor_type.elem_type) == ("image", onnx.TensorProto.UINT8)
    *free, channels = image.type.tensor_type.shape.dim
    assert all(not dimension.HasField("dim_value") for dimension in free)
    assert channels.dim_value == 3


@settings(deadline=None, max_examples=15)
@given(number=st.integers(1, 3), rows=st.integers(1, 12), columns=st.integers(1, 12))
def test_onnx_runtime_reproduces_pytorch_at_every_size(
    number: int, rows: int, columns: int, graph: SegmentationGraph, session: InferenceSession
) -> None:
    image = pixels(rows * STRIDE, columns * STRIDE, number)
    found = dict(zip(graph.names, session.run(graph.names, {"image": image}), strict=True))
    for name, expected in outputs(graph, image).items():
        assert found[name].shape == tuple(expected.shape)
        np.testing.assert_allclose(found[name], expected, rtol=1e-3, atol=1e-5)


def test_outputs_have_the_specified_names_and_shapes(graph: SegmentationGraph) -> None:
    assert {name: tuple(value.shape) for name, value in outputs(graph, pixels(16, 24)).items()} == {
        "probabilities": (2, 2, 16, 24),
        "distance": (2, 2, 16, 24),
        "disagreement": (2, 2, 16, 24),
        "novelty": (2,),
    }


def test_a_single_member_without_distances_has_no_outputs_for_them() -> None:
    assert SegmentationGraph([segmenter(0, outputs=2)], 2).names == ["probabilities", "novelty"]


def test_novelty_is_the_mean_uncertainty_of_possible_objects() -> None:
    probabilities = torch.tensor([[0.0, 0.29, 1.0, 0.5], [0.0, 0.0, 0.1, 0.2]]).reshape(2, 1, 2, 2)
    torch.testing.assert_close(novelty(probabilities), torch.tensor([0.5, 0.0]), atol=1e-3, rtol=0)


def test_an_ensemble_is_the_mean_of_its_members(graph: SegmentationGraph) -> None:
    rows = pixels(16, 24)
    found = outputs(graph, rows)
    alone = [outputs(SegmentationGraph([segmenter(seed)], 2).eval(), rows) for seed in (0, 1)]
    for name in ("probabilities", "distance"):
        torch.testing.assert_close(found[name], torch.stack([one[name] for one in alone]).mean(dim=0))
    spread = torch.stack([one["probabilities"] for one in alone]).std(dim=0, correction=0)
    torch.testing.assert_close(found["disagreement"], spread)


@pytest.mark.parametrize("network", [SMALL, UNet("u-net", widths=(3, 4), block="residual", normalization="none")])
def test_an_output_depends_on_no_distant_pixel(network: UNet) -> None:
    """Otherwise tiles would have visible seams."""
    member = segmenter(0, network=network)
    graph = SegmentationGraph([member], 2).eval()
    rows = pixels(64, 64, 1)
    changed = rows.copy()
    changed[:, :8] = 255 - changed[:, :8]
    before, after = (outputs(graph, image)["probabilities"] for image in (rows, changed))
    assert not torch.equal(before[:, :, :8], after[:, :, :8])
    torch.testing.assert_close(before[:, :, 48:], after[:, :, 48:], atol=1e-6, rtol=0)
