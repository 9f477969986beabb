"""Exceeding any limit of the real server gives a defined status and is counted."""

import io
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from PIL import Image

from calls.bad_request import code_of, limit_of
from medserve_client import Client
from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_proto.v1 import image_classification_pb2 as image_pb
from medserve_proto.v1 import image_segmentation_pb2 as segment_pb
from medserve_proto.v1 import patient_risk_pb2 as risk_pb
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationStub
from medserve_proto.v1.image_segmentation_pb2_grpc import ImageSegmentationStub
from medserve_proto.v1.patient_risk_pb2_grpc import PatientRiskStub
from medserve_server.security.auth import new_token
from samples import onnx_models
from servers.server_process import ServerProcess, running_server
from waiting import PATIENCE, wait_until

Metadata = tuple[tuple[str, str], ...]


def identity() -> pb.ModelInferRequest:
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1, 3])
    return pb.ModelInferRequest(model_name="identity-fp32", inputs=[tensor], raw_input_contents=[bytes(12)])


def infer(channel: grpc.Channel, metadata: Metadata | None = None) -> tuple[grpc.StatusCode, str]:
    call = GRPCInferenceServiceStub(channel).ModelInfer.future(identity(), metadata=metadata, timeout=PATIENCE)
    return call.code(), call.details() or ""


@contextmanager
def open_stream(channel: grpc.Channel, metadata: Metadata | None = None) -> Iterator[None]:
    """Keeps a stream open that has received one response."""
    release = Event()

    def requests() -> Iterator[pb.ModelInferRequest]:
        yield identity()
        release.wait(PATIENCE)

    stream = GRPCInferenceServiceStub(channel).ModelStreamInfer(requests(), metadata=metadata)
    try:
        next(stream)
        yield
    finally:
        stream.cancel()
        release.set()


def refused(server: ServerProcess, reason: str) -> float:
    return server.sample(f'medserve_refused_total{{reason="{reason}"}}')


def test_too_large_message_is_refused(zoo: ServerProcess, transport: str) -> None:
    """On grpcio, gRPC itself refuses the message; the server only sees a call that ended unread."""
    counter = 'medserve_refused_total{reason="message_size"}' if transport == "envoy" else "medserve_unread_total"
    before = zoo.sample(counter)
    large = identity()
    large.raw_input_contents[0] = bytes(5 << 20)
    with grpc.insecure_channel(zoo.target) as channel:
        stub = GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(large, timeout=PATIENCE)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        wait_until(lambda: zoo.sample(counter) == before + 1)
        stub.ModelInfer(identity(), timeout=PATIENCE)
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(pb.ModelInferRequest(model_name="none"), timeout=PATIENCE)
        assert zoo.sample(counter) == before + 1


def image_file(**save: object) -> bytes:
    file = io.BytesIO()
    Image.radial_gradient("L").save(file, **save)  # type: ignore[arg-type]  # options of the format
    return file.getvalue()


def blank(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(chunks: bytes) -> bytes:
    whole = image_file(format="PNG")
    return whole[:33] + chunks + whole[33:]  # after the header


def jpeg_of_many_scans() -> bytes:
    whole = image_file(format="JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:-2] + whole[last:-2] * 100 + whole[-2:]


def tiff_of_one_huge_tile() -> bytes:
    data = zlib.compress(bytes(1000))
    sizes = {256: 28, 257: 28, 258: 8, 259: 8, 262: 1, 277: 1, 322: 30_000, 323: 30_000, 324: 8, 325: len(data)}
    tags = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sizes.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(sizes)) + tags + bytes(4)


ENCODED = {
    "pixels": [blank(7000, 7000)],
    "decompression": [blank(4000, 4000), tiff_of_one_huge_tile()],
    "image_parts": [
        png_with(chunk(b"teSt", b"") * 20_000),
        png_with(chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(1_000_000))) * 100),
        jpeg_of_many_scans(),
        b"\xff\xd8" + b"\xff\xfe\0\2" * 20_000 + image_file(format="JPEG")[2:],
    ],
}


@pytest.mark.parametrize(
    ("reason", "data"), [(reason, data) for reason, files in ENCODED.items() for data in files], ids=lambda _: ""
)
def test_expensive_image_is_refused_at_low_cost(server: ServerProcess, reason: str, data: bytes) -> None:
    before = refused(server, reason)
    request = image_pb.ClassifyRequest(model_name="chest-xray", images=[image_pb.Image(encoded=data)])
    with grpc.insecure_channel(server.target) as channel, pytest.raises(grpc.RpcError) as caught:
        ImageClassificationStub(channel).Classify(request, timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (caught.value.details() or "").startswith("images[0].encoded: ")
    assert refused(server, reason) == before + 1


def test_ordinary_images_of_all_formats_are_accepted(server: ServerProcess) -> None:
    files = [
        image_file(format="PNG"),
        image_file(format="JPEG", progressive=True),
        image_file(format="TIFF"),
        image_file(format="TIFF", compression="tiff_deflate"),
        png_with(chunk(b"tEXt", b"k\0v") * 100),
        blank(1000, 1000),
    ]
    with Client(server.target) as client:
        assert len(client.classify(files, "chest-xray").results) == len(files)


def features(count: int) -> risk_pb.Patient:
    patient = risk_pb.Patient()
    for index in range(count):
        patient.features.add(key=f"f{index}", value=risk_pb.FeatureValue(number=1.0))
    return patient


def tensors(count: int) -> pb.ModelInferRequest:
    request = identity()
    for index in range(count):
        request.outputs.add(name=f"y{index}")
    return request


long = "x" * 300


@pytest.mark.parametrize(
    ("reason", "request_", "words"),
    [
        ("features", risk_pb.PredictRequest(model_name="breast-cancer-risk", patients=[features(300)]), "300 entries"),
        ("name_length", risk_pb.PredictRequest(model_name=long), "model_name: has 300 characters"),
        ("name_length", image_pb.ClassifyRequest(model_name="chest-xray", request_id=long), "request_id: has 300"),
        ("name_length", pb.ModelInferRequest(model_name="identity-fp32", id=long), "id: has 300 characters"),
        ("tensors", tensors(1000), "1000 tensors"),
        ("rows", risk_pb.PredictRequest(model_name="breast-cancer-risk", patients=[risk_pb.Patient()] * 1001), "1001"),
        ("rows", segment_pb.SegmentRequest(model_name="spots", images=[segment_pb.ImageToSegment()] * 1001), "1001"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_request_with_too_many_or_too_long_entries_is_refused(
    zoo: ServerProcess,
    zoo_channel: grpc.Channel,
    reason: str,
    request_: risk_pb.PredictRequest | image_pb.ClassifyRequest | segment_pb.SegmentRequest | pb.ModelInferRequest,
    words: str,
) -> None:
    methods = {
        risk_pb.PredictRequest: PatientRiskStub(zoo_channel).Predict,
        image_pb.ClassifyRequest: ImageClassificationStub(zoo_channel).Classify,
        segment_pb.SegmentRequest: ImageSegmentationStub(zoo_channel).Segment,
        pb.ModelInferRequest: GRPCInferenceServiceStub(zoo_channel).ModelInfer,
    }
    before = refused(zoo, reason)
    with pytest.raises(grpc.RpcError) as caught:
        methods[type(request_)](request_, timeout=PATIENCE)  # type: ignore[operator]  # each takes its own type
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in (caught.value.details() or "")
    assert refused(zoo, reason) == before + 1


def test_refused_stream_requests_are_counted(zoo: ServerProcess, zoo_channel: grpc.Channel) -> None:
    before = refused(zoo, "tensors")
    responses = GRPCInferenceServiceStub(zoo_channel).ModelStreamInfer(iter([identity(), tensors(1000), identity()]))
    assert [bool(response.error_message) for response in responses] == [False, True, False]
    assert refused(zoo, "tensors") == before + 1


def test_one_client_does_not_block_others_or_health(small: Path, transport: str, tmp_path: Path) -> None:
    made = {name: new_token(name, "infer") for name in ("greedy", "other", "late")}
    (tmp_path / "tokens").write_text("\n".join(line for _, line in made.values()))
    greedy, other, late = ((("authorization", f"Bearer {token}"),) for token, _ in made.values())
    flags = ("--transport", transport, "--models", str(small), "--tokens", str(tmp_path / "tokens"))
    with (
        running_server(*flags, "--max-client-calls", "3", "--max-pending-requests", "5") as server,
        grpc.insecure_channel(server.target) as channel,
        ExitStack() as streams,
    ):
        with ExitStack() as of_greedy:
            for _ in range(3):
                of_greedy.enter_context(open_stream(channel, greedy))
            code, text = infer(channel, greedy)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "3 calls of this client" in text
            assert refused(server, "client_calls") == 1
            for _ in range(2):
                assert infer(channel, other)[0] is grpc.StatusCode.OK
                streams.enter_context(open_stream(channel, other))
            code, text = infer(channel, late)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "5 calls are already in progress" in text
            assert refused(server, "calls") == 1
            with Client(server.target) as client:
                assert client.health().name == "SERVING"
        wait_until(lambda: infer(channel, greedy)[0] is grpc.StatusCode.OK, "the streams to end")


def test_without_tokens_clients_are_identified_by_address(small: Path, transport: str) -> None:
    flags = ("--transport", transport, "--models", str(small), "--max-client-calls", "2")
    with running_server(*flags) as server, ExitStack() as stack:
        for _ in range(2):  # on different connections
            channel = stack.enter_context(grpc.insecure_channel(server.target, [("grpc.use_local_subchannel_pool", 1)]))
            stack.enter_context(open_stream(channel))
        with pytest.raises(grpc.RpcError) as caught, open_stream(channel):
            pass
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused(server, "client_calls") == 1


def test_frequent_calls_are_refused_and_streams_are_throttled(small: Path, transport: str) -> None:
    flags = ("--transport", transport, "--models", str(small))
    with (
        running_server(*flags, "--max-client-rate", "0.01") as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        assert infer(channel)[0] is grpc.StatusCode.OK
        with pytest.raises(grpc.RpcError, match=r"more than 0\.01 requests per second") as caught:
            GRPCInferenceServiceStub(channel).ModelInfer(identity(), timeout=PATIENCE)
        assert code_of(caught) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert limit_of(caught.value) == "CLIENT_RATE"
        assert refused(server, "client_rate") == 1
    with (
        running_server(*flags, "--max-client-rate", "5") as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        started = time.monotonic()
        responses = list(GRPCInferenceServiceStub(channel).ModelStreamInfer(identity() for _ in range(12)))
        assert not any(response.error_message for response in responses)
        # Opening the stream and 12 requests count; 5 of them were immediately allowed.
        assert time.monotonic() - started > 8 / 5 - 0.1


PING, GOAWAY = 6, 7


class RawConnection:
    """A minimal HTTP/2 connection: sends pings and reads frames."""

    def __init__(self, target: str) -> None:
        host, port = target.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        self._file = self.socket.makefile("rb")
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))

    def ping(self, times: int) -> None:
        self.socket.sendall((bytes([0, 0, 8, PING, 0, 0, 0, 0, 0]) + bytes(8)) * times)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Yields type and payload of each frame until the server closes the connection."""
        with suppress(ConnectionResetError):
            while len(head := self._file.read(9)) == 9:
                yield head[3], self._file.read(int.from_bytes(head[:3]))

    def close(self) -> None:
        self._file.close()
        self.socket.close()


def accepted(target: str) -> RawConnection:
    """Returns a connection that the server accepted; retries while connections of earlier tests are still open."""
    end = time.monotonic() + PATIENCE
    while True:
        connection = RawConnection(target)
        if next(connection.frames(), None):
            return connection
        connection.close()
        assert time.monotonic() < end


def test_number_of_health_watchers_is_limited(narrow: ServerProcess) -> None:
    with grpc.insecure_channel(narrow.target) as channel:
        stub: Any = HealthStub(channel)
        request = health_pb2.HealthCheckRequest()
        watchers = [stub.Watch(request, wait_for_ready=True) for _ in range(3)]
        for watcher in watchers:
            assert next(watcher).status == health_pb2.HealthCheckResponse.SERVING
        assert stub.Watch(request).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert stub.Check(request, timeout=PATIENCE).status == health_pb2.HealthCheckResponse.SERVING
        for watcher in watchers:
            watcher.cancel()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one small model, so that servers start quickly."""
    folder = tmp_path_factory.mktemp("small")
    onnx_models.save(folder, "identity-fp32", onnx_models.identity("FP32", ["batch", 3]))
    return folder


@pytest.fixture(scope="module")
def impatient(small: Path) -> Iterator[ServerProcess]:
    with running_server(
        *("--transport", "grpcio", "--models", str(small)),
        *("--max-connection-age", "3", "--max-connection-idle", "1"),
    ) as server:
        yield server


@pytest.fixture(scope="module")
def narrow(small: Path) -> Iterator[ServerProcess]:
    with running_server("--transport", "grpcio", "--models", str(small), "--max-connections", "3") as server:
        yield server


def test_connection_beyond_the_limit_is_closed(narrow: ServerProcess) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(closing(accepted(narrow.target)))
        late = stack.enter_context(closing(RawConnection(narrow.target)))
        assert list(late.frames()) == []


def test_idle_connection_is_closed(impatient: ServerProcess) -> None:
    with closing(accepted(impatient.target)) as connection:
        assert GOAWAY in [kind for kind, _ in connection.frames()]


def test_connection_beyond_the_maximum_age_is_drained_and_closed(impatient: ServerProcess) -> None:
    with grpc.insecure_channel(impatient.target, [("grpc.enable_retries", 0)]) as channel:
        stub = GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.ModelStreamInfer(slowly(), wait_for_ready=True))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert stub.ModelInfer(identity(), wait_for_ready=True, timeout=PATIENCE).raw_output_contents


def slowly() -> Iterator[pb.ModelInferRequest]:
    for _ in range(300):
        yield identity()
        time.sleep(0.2)


def test_client_that_sends_too_many_pings_is_disconnected(server: ServerProcess, transport: str) -> None:
    if transport == "envoy":
        return  # Envoy responses the pings
    with closing(RawConnection(server.target)) as connection:
        connection.ping(10)
        (goaway,) = [payload for kind, payload in connection.frames() if kind == GOAWAY]
        assert b"too_many_pings" in goaway
