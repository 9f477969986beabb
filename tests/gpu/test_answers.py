"""The GPU reproduces the CPU's results, for every model, batch size and shape, and for one or many callers."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import json_format

from gpu import networks
from gpu.answers import CLASSIFIERS, MOST_ROWS, TOLERANCE, Expected, check, infer, input_of, manifest_of, model_file
from gpu.conftest import serving
from medserve_proto.v1 import manifest_pb2 as pb
from medserve_server.config import Settings
from medserve_server.engine.parity import deviation
from medserve_server.engine.providers import Provider
from medserve_server.engine.session import Session
from samples import onnx_models
from samples.explained_models import with_manifest
from servers.server_process import ServerProcess, refusal

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def server(models: Path, provider: Provider) -> Iterator[ServerProcess]:
    """Serves all models at once."""
    load = [flag for name in (*CLASSIFIERS, "free-size") for flag in ("--load-model", name)]
    with serving(models, provider, *load) as started:
        yield started


@pytest.fixture(scope="module")
def channel(server: ServerProcess) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.target) as opened:
        yield opened


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_model_is_served_on_the_provider(name: str, provider: Provider, server: ServerProcess) -> None:
    lines = [line for line in server.metrics().splitlines() if line.startswith("medserve_session_info{")]
    (own,) = [line for line in lines if f'model="{name}"' in line]
    assert f'provider="{provider}"' in own


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_reference_rows_are_reproduced(name: str, provider: Provider, expected: Expected) -> None:
    session = Session(model_file(expected.path(name)), provider, Settings())
    found = deviation(session, manifest_of(session))
    assert found is not None
    assert found < TOLERANCE[provider]


def test_a_model_whose_reference_rows_deviate_is_rejected(provider: Provider, tmp_path: Path) -> None:
    model = networks.article_cnn()
    manifest = json_format.Parse(model.metadata_props[0].value, pb.Manifest())
    manifest.reference[0].probabilities[0] += 2 * Settings().max_deviation
    del model.metadata_props[:]
    onnx_models.save(tmp_path, "article-cnn", with_manifest(model, manifest))
    text = refusal("--models", str(tmp_path), "--provider", provider)
    assert f"on {provider} a probability differs by 0.01 from the manifest's reference" in text


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_batches_of_1_to_64_rows_match_the_cpu(
    name: str, provider: Provider, channel: grpc.Channel, expected: Expected
) -> None:
    main, rows, right = expected.batch(name)
    assert np.ptp(right[main], axis=0).max() > 0.1, "rows that were mixed up would be noticed"
    for size in (1, 2, 3, 4, 7, 8, 16, 31, 32, 33, 63, 64):
        part = slice(MOST_ROWS - size, MOST_ROWS)
        check(infer(channel, name, input_of(name), rows[part]), right, main, part, TOLERANCE[provider])


def test_a_model_with_dynamic_shapes_accepts_different_shapes(
    provider: Provider, channel: grpc.Channel, expected: Expected
) -> None:
    random = np.random.default_rng(4)
    for shape in ((1, 1, 5, 9), (3, 1, 64, 48), (1, 1, 1, 1), (2, 1, 513, 257), (3, 1, 64, 48), (1, 1, 5, 9)):
        x = random.random(shape, np.float32)
        found = infer(channel, "free-size", "x", x)
        np.testing.assert_allclose(found["y"], expected.alone("free-size", x)["y"], rtol=0, atol=TOLERANCE[provider])


def test_concurrent_callers_of_all_models_receive_their_own_rows(
    provider: Provider, channel: grpc.Channel, expected: Expected
) -> None:
    def call(name: str, start: int) -> None:
        main, rows, right = expected.batch(name)
        part = slice(start, start + 1 + start % 3)
        check(infer(channel, name, input_of(name), rows[part]), right, main, part, TOLERANCE[provider])

    for name in CLASSIFIERS:
        expected.batch(name)
    with ThreadPoolExecutor(16) as threads:
        calls = [threads.submit(call, name, start) for start in range(0, 60, 4) for name in CLASSIFIERS]
        for ended in calls:
            ended.result()


def test_bound_outputs_are_valid_after_the_next_run(provider: Provider, tmp_path: Path) -> None:
    """The graph has BF16, so that the CPU uses I/O binding as GPUs do."""
    path = onnx_models.save(tmp_path, "two-types", onnx_models.two_types())
    session = Session(model_file(path), provider, Settings())
    single = np.arange(2 * MOST_ROWS, dtype=np.float32).reshape(MOST_ROWS, 2)
    ones = np.full((MOST_ROWS, 2), 0x3F80, np.uint16)  # 1 in BF16
    runs = [
        (size, session.run({"half": ones[:size], "single": single[-size:]}, ["same", "difference"]))
        for size in (MOST_ROWS, 1, 3, MOST_ROWS)
    ]
    for size, outputs in runs:
        assert list(outputs) == ["same", "difference"]
        np.testing.assert_array_equal(outputs["same"], ones[:size])
        np.testing.assert_array_equal(outputs["difference"], single[-size:] - 1)
