"""The access log, and the absence of client data from logs, metrics, traces and errors of other requests."""

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message import Message
from PIL import Image, PngImagePlugin, TiffImagePlugin

from calls.inference_requests import raw_request
from calls.segmentation import to_segment
from medserve_proto.inference import grpc_service_pb2 as inference
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_proto.v1 import image_classification_pb2 as images
from medserve_proto.v1 import image_segmentation_pb2 as segmentation
from medserve_proto.v1 import patient_risk_pb2 as risk
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationStub
from medserve_proto.v1.image_segmentation_pb2_grpc import ImageSegmentationStub
from medserve_proto.v1.patient_risk_pb2_grpc import PatientRiskStub
from medserve_server.security.auth import new_token
from samples.dicom_files import PATIENT, dicom
from servers.otlp_collector import Collector, running_collector
from servers.server_process import ServerProcess, running_server
from waiting import PATIENCE

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STREAMS = {
    "Classify": "ClassifyStream",
    "Segment": "SegmentStream",
    "Predict": "PredictStream",
    "ModelInfer": "ModelStreamInfer",
}
# Texts by which a leak is detected. All numbers are exact in float32.
PIXELS = "MARKPIXL"
AGE, SIZE, RECEPTOR = 41.734375, 23.765625, 33.640625
METADATA = (
    ("x-note", "MARK-METADATA"),
    ("x-note-bin", b"MARK-BYTES"),
    ("tracestate", "vendor=MARK-STATE"),
    ("user-agent", "MARK-AGENT"),
)
MARKS = [
    PIXELS,
    "MARKPI",
    "77, 65, 82",  # the same bytes as numbers
    "77 65 82",
    *(str(number)[:6] for number in (AGE, SIZE, RECEPTOR)),
    *PATIENT,
    "MARK-",
    "918273",
]


@dataclass(frozen=True)
class SentRequest:
    """A request, and the invalid values that its error may repeat."""

    method: str
    request: Message
    code: grpc.StatusCode = grpc.StatusCode.OK
    repeats: tuple[str, ...] = ()


def image_file(kind: str) -> bytes:
    pixels = np.frombuffer(PIXELS.encode() * 98, np.uint8).reshape(28, 28)
    file = io.BytesIO()
    if kind == "TIFF":
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[270], tags[315] = "MARK-DESCRIPTION", "MARK-ARTIST"
        Image.fromarray(pixels).save(file, kind, tiffinfo=tags)
    else:
        texts = PngImagePlugin.PngInfo()
        texts.add_text("Patient", "MARK-TEXT")
        Image.fromarray(pixels).save(file, kind, pnginfo=texts)
    return file.getvalue()


def patient(**changes: float | str) -> risk.Patient:
    values: dict[str, float | str] = {
        "age": AGE,
        "menopause": "post",
        "tumor_size": SIZE,
        "grade": "II",
        "positive_nodes": 3,
        "progesterone_receptor": RECEPTOR,
        "estrogen_receptor": 40,
        "hormone_therapy": "no",
    }
    entries = []
    for name, value in (values | changes).items():
        kind = {"category": value} if isinstance(value, str) else {"number": value}
        entries.append(risk.FeatureEntry(key=name, value=risk.FeatureValue(**kind)))
    return risk.Patient(features=entries)


def requests() -> Iterator[SentRequest]:
    """Yields valid and invalid requests of every kind."""
    bad = grpc.StatusCode.INVALID_ARGUMENT
    pixels = PIXELS.encode() * 98
    classify = partial(images.ClassifyRequest, model_name="chest-xray", request_id="r-1")
    for data in (image_file("PNG"), image_file("TIFF"), dicom(np.frombuffer(pixels, np.uint8).reshape(28, 28))):
        yield SentRequest("Classify", classify(images=[images.Image(encoded=data)]))
        yield SentRequest("Classify", classify(images=[images.Image(encoded=data[: len(data) // 3])]), bad)
    raw = images.Image(raw=images.RawImage(shape=[28, 28, 1], pixels=pixels))
    short = images.Image(raw=images.RawImage(shape=[28, 28, 1], pixels=pixels[:-1]))
    yield SentRequest("Classify", classify(images=[raw]))
    yield SentRequest("Classify", classify(images=[raw, short]), bad)
    yield SentRequest(
        "Classify", classify(images=[raw], model_name="MARK-MODEL"), grpc.StatusCode.NOT_FOUND, ("MARK-MODEL",)
    )
    segment = partial(segmentation.SegmentRequest, model_name="spots", request_id="r-1")
    yield SentRequest("Segment", segment(images=[to_segment(image_file("PNG"), 0.5, 0.5)], contours=True))
    # The patient's age stands for a distance that a file states, which no other output may repeat.
    file = dicom(np.frombuffer(pixels, np.uint8).reshape(28, 28), PixelSpacing=[AGE, AGE])
    yield SentRequest("Segment", segment(images=[to_segment(file)]))
    yield SentRequest("Segment", segment(images=[to_segment(file, AGE, 0.5)]), bad, (f"{AGE:g}",))
    yield SentRequest("Segment", segment(images=[to_segment(image_file("PNG"), -918273, 1)]), bad, ("918273",))
    predict = partial(risk.PredictRequest, model_name="breast-cancer-risk", request_id="r-1")
    yield SentRequest("Predict", predict(patients=[patient()]))
    yield SentRequest("Predict", predict(patients=[patient(), patient(grade="MARK-GRADE")]), bad, ("MARK-GRADE",))
    yield SentRequest("Predict", predict(patients=[patient(**{"MARK-NAME": 918273.0})]), bad, ("MARK-NAME",))
    yield SentRequest("Predict", predict(patients=[patient(age=-918273.0)]), bad, ("918273",))
    strings = np.array(["MARK-STRING"] * 3, object)
    tensor = inference.ModelInferRequest.InferInputTensor(name="x", datatype="BYTES", shape=[1, 3])
    tensor.contents.bytes_contents.extend(text.encode() for text in strings)
    yield SentRequest("ModelInfer", inference.ModelInferRequest(model_name="identity-bytes", id="r-1", inputs=[tensor]))
    tensor = inference.ModelInferRequest.InferInputTensor(name="MARK-TENSOR", datatype="FP32", shape=[1, 3])
    other = inference.ModelInferRequest(model_name="identity-fp32", inputs=[tensor], raw_input_contents=[b"MARK-RAW"])
    yield SentRequest("ModelInfer", other, bad, ("MARK-TENSOR",))
    # ONNX Runtime's message contains the index that is out of range.
    fails = raw_request("lookup", np.array([918273]), "INT64", "r-1")
    yield SentRequest("ModelInfer", fails, grpc.StatusCode.INTERNAL)


@dataclass
class Watched:
    server: ServerProcess
    collector: Collector
    token: str
    log: Path
    metadata: tuple[tuple[str, str | bytes], ...]

    def ask(self, sent: SentRequest, stream: bool) -> tuple[grpc.StatusCode, str]:
        """Sends a request; returns its status and the entire error that its client receives."""
        with grpc.insecure_channel(self.server.target) as channel:
            if not stream:
                return code_and_text(partial(stub_of(channel, sent.method), sent.request, metadata=self.metadata))
            (response,) = stub_of(channel, STREAMS[sent.method])(
                iter([sent.request]), metadata=self.metadata, timeout=PATIENCE
            )
            return stream_outcome(response)


def stub_of(channel: grpc.Channel, method: str) -> Callable[..., Any]:
    stubs = (ImageClassificationStub, ImageSegmentationStub, PatientRiskStub, GRPCInferenceServiceStub)
    (found,) = [getattr(stub(channel), method) for stub in stubs if hasattr(stub(channel), method)]
    call: Callable[..., Any] = found
    return call


def code_and_text(call: Callable[..., Any]) -> tuple[grpc.StatusCode, str]:
    try:
        call(timeout=PATIENCE)
    except grpc.RpcError as error:
        return error.code(), f"{error.details()} {error.trailing_metadata()}"
    return grpc.StatusCode.OK, ""


def stream_outcome(response: Any) -> tuple[grpc.StatusCode, str]:  # noqa: ANN401 - of three types
    """Returns the status and error in a stream response; UNKNOWN where the Open Inference Protocol has no status."""
    if isinstance(response, inference.ModelStreamInferResponse):
        failed = response.error_message != ""
        return (grpc.StatusCode.UNKNOWN if failed else grpc.StatusCode.OK), response.error_message
    codes = {code.value[0]: code for code in grpc.StatusCode}
    return codes[response.error.code], str(response.error) if response.HasField("error") else ""


@pytest.fixture(scope="module")
def output(
    repository: Path, transport: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[tuple[SentRequest, grpc.StatusCode, str]] | str | Collector]:
    """All output of a server that received every request, unary and in streams: errors, log, metrics and traces."""
    folder = tmp_path_factory.mktemp("audit")
    token, line = new_token("ward", "infer")
    (folder / "tokens.txt").write_text(line)
    flags = ("--transport", transport, "--models", str(repository), "--tokens", str(folder / "tokens.txt"))
    verbose = ("--log-level", "debug", "--log-format", "json", "--access-log")
    bearer = ("authorization", f"Bearer {token}")
    stranger = ("authorization", "Bearer MARK-TOKEN")
    trace = ("traceparent", f"00-{TRACE}-{PARENT}-01")
    responses = []
    with running_collector() as collector:
        otlp = ("--otlp-endpoint", collector.endpoint)
        with running_server(*flags, *verbose, *otlp, log=folder / "log") as server:
            watched = Watched(server, collector, token, folder / "log", (bearer, trace, *METADATA))
            for sent in requests():
                responses += [(sent, *watched.ask(sent, stream)) for stream in (False, True)]
            sent = SentRequest("Predict", risk.PredictRequest(patients=[patient()]), grpc.StatusCode.UNAUTHENTICATED)
            watched.metadata = (stranger, ("traceparent", "00-MARK-PARENT"), *METADATA)
            responses.append((sent, *watched.ask(sent, stream=False)))
            metrics = server.metrics()
        traces = "".join(str(request) for request in collector.requests)
    log = (folder / "log").read_text()
    return {"clients": responses, "log": log, "metrics": metrics, "traces": traces, "token": token}


@pytest.mark.parametrize("where", ["log", "metrics", "traces"])
def test_request_data_does_not_appear_in_output(output: dict[str, Any], where: str) -> None:
    text = output[where]
    assert "breast-cancer-risk" in text, "the output is not empty"
    assert not [mark for mark in [*MARKS, output["token"]] if mark in text]


def test_error_repeats_only_the_invalid_value(output: dict[str, Any]) -> None:
    for sent, code, text in output["clients"]:
        if code is not grpc.StatusCode.UNKNOWN:  # a stream response of the Open Inference Protocol
            assert code is sent.code, text
        assert bool(text) is (sent.code is not grpc.StatusCode.OK)
        assert all(value in text for value in sent.repeats)
        others = re.sub("|".join(sent.repeats) or "$^", "", text)
        assert not [mark for mark in [*MARKS, output["token"]] if mark in others], text


def test_every_call_and_stream_request_has_a_log_line(output: dict[str, Any]) -> None:
    lines = [json.loads(line) for line in output["log"].splitlines() if line.startswith("{")]
    assert len(lines) == len(output["log"].splitlines()), "all lines of the log are JSON"
    calls = [line for line in lines if line["message"] == "call"]
    of_streams = [line for line in lines if line["message"] == "request of a stream"]
    sent = [sent for sent, _, _ in output["clients"]]
    assert len(calls) == len(sent)
    assert len(of_streams) == len(sent) // 2
    unary = [line for line in calls if "Stream" not in line["method"]]
    for one, line in zip([*sent[:-1:2], sent[-1]], unary, strict=True):
        assert line["status"] == one.code.name
        assert line["method"].endswith(f"/{one.method}")
    for one, line in zip(sent[:-1:2], of_streams, strict=True):
        assert line["status"] == one.code.name


def test_log_line_contains_client_model_and_durations(output: dict[str, Any]) -> None:
    lines = [json.loads(line) for line in output["log"].splitlines()]
    answered = [line for line in lines if line.get("status") == "OK" and line.get("model")]
    served = re.search(r"breast-cancer-risk/1 is now served, SHA-256 ([0-9a-f]{64})", output["log"])
    assert served is not None
    for line in answered:
        assert (line["client"], line["request_id"], line["version"]) == ("ward", "r-1", max(line["version"], "1"))
        assert line["trace_id"] == TRACE
        assert line["rows"] == 1
        assert 0 < line["compute_seconds"] < line["total_seconds"]
        assert 0 <= line["queue_seconds"] < line["total_seconds"]
        if line["model"] == "breast-cancer-risk":
            assert line["sha256"] == served[1]
    (refused,) = [line for line in lines if line.get("status") == "UNAUTHENTICATED"]
    assert (refused["client"], refused["model"], refused["trace_id"]) == ("127.0.0.1", "", "")
    assert re.fullmatch("[0-9a-f]{32}", refused["request_id"])


def test_clients_cannot_inject_log_lines(transport: str, repository: Path, tmp_path: Path) -> None:
    """Request IDs are arbitrary text: they are truncated, and escaped to stay on one line."""
    log = tmp_path / "log"
    with (
        running_server("--transport", transport, "--models", str(repository), "--access-log", log=log) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        forged = '"\n2026-01-01 INFO medserve_server.access: call method="/forged" \x1b[2J é'
        stub.ModelInfer(raw_request("lookup", np.array([1]), "INT64", forged), timeout=PATIENCE)
        with pytest.raises(grpc.RpcError):
            stub.ModelInfer(raw_request("lookup", np.array([1]), "INT64", "x" * 10_000), timeout=PATIENCE)
    text = log.read_text()
    lines = [line for line in text.splitlines() if "medserve_server.access" in line]
    assert len(lines) == 2
    assert text.isascii()
    assert "\x1b" not in text
    assert f"request_id={json.dumps(forged)}" in lines[0]
    assert f'request_id="{"x" * 128}"' in lines[1]


def test_calls_are_not_logged_by_default(transport: str, repository: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        running_server(
            "--transport", transport, "--models", str(repository), "--log-level", "debug", log=log
        ) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        GRPCInferenceServiceStub(channel).ModelInfer(raw_request("lookup", np.array([1]), "INT64"), timeout=PATIENCE)
    assert "ModelInfer" not in log.read_text()
