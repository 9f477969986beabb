"""DICOM files through the real server: answered as the same picture sent plainly, and no patient in the log."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from pydicom import uid

from calls.bad_request import code_of, violations
from medserve_client import Client, ImageWarningKind, InvalidArgumentError
from medserve_proto.v1 import image_classification_pb2 as pb
from medserve_proto.v1.image_classification_pb2_grpc import ImageClassificationStub
from samples.dicom_files import PATIENT, dicom, raw_dicom, words
from servers.server_process import ServerProcess, running_server

MODEL = "chest-xray"
FRAMES = np.random.default_rng(4).integers(0, 256, (5, 28, 28), dtype=np.uint8)


@pytest.fixture(scope="module")
def logged(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path]]:
    """A server that logs all it can, and its log."""
    log = tmp_path_factory.mktemp("dicom") / "log"
    with running_server("--transport", transport, "--log-level", "debug", log=log) as server:
        yield server, log


@pytest.fixture(scope="module")
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.target) as opened:
        yield opened


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_each_frame_is_answered_as_its_pixels_are(client: Client, tmp_path: Path, syntax: uid.UID) -> None:
    path = tmp_path / "scan.dcm"
    path.write_bytes(dicom(FRAMES, frames=5, syntax=syntax))
    plain = client.classify(list(FRAMES), MODEL).results
    assert len({result.labels[0].probability for result in plain}) == 5
    for frame in range(5):
        (result,) = client.classify(path, MODEL, frame=frame).results
        assert result.labels == plain[frame].labels


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_a_lookup_table_of_negative_values_is_answered_as_its_pixels_are(client: Client, syntax: uid.UID) -> None:
    table = {
        "LUTDescriptor": ("US", [4096, -2048 % 65536, 8]),
        "LUTData": ("OW", words(np.arange(4096) // 16, syntax)),
    }
    stored = FRAMES[0].astype(np.int16) * 16 - 2048
    data = raw_dicom(stored, syntax, BitsStored=12, VOILUTSequence=[table])
    assert client.classify(data, MODEL).results[0].labels == client.classify(FRAMES[0], MODEL).results[0].labels


def test_contradictions_and_refusals_are_named(client: Client) -> None:
    (result,) = client.classify(raw_dicom(FRAMES[0], PresentationLUTShape="INVERSE"), MODEL).results
    assert result.warnings[0].kind == ImageWarningKind.ELEMENT_IGNORED
    assert "PresentationLUTShape INVERSE, which contradicts MONOCHROME2" in result.warnings[0].message
    with pytest.raises(InvalidArgumentError) as caught:
        client.classify(raw_dicom(FRAMES[0], WindowCenter="10", WindowWidth="0"), MODEL)
    assert {one.field: one.description for one in caught.value.violations} == {
        "images[0].encoded": "is a DICOM file whose WindowWidth is 0, expected at least 1 for the VOILUTFunction LINEAR"
    }


def test_what_was_done_to_the_values_is_said(client: Client) -> None:
    data = dicom(FRAMES[0].astype(np.uint16) * 16, BitsStored=12, WindowCenter="2048", WindowWidth="4096")
    (result,) = client.classify(data, MODEL).results
    said = result.warnings[0]
    assert said.kind == ImageWarningKind.DEPTH_REDUCED
    assert said.message == "converted from 12 to 8 bits by its first window (center 2048, width 4096)"


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_an_answer_names_the_instance(client: Client, syntax: uid.UID) -> None:
    files = [dicom(FRAMES[0], syntax=syntax, SOPInstanceUID=name) for name in ("1.2.840.1", "2.25." + "9" * 59)]
    results = client.classify([*files, FRAMES[0]], MODEL).results
    assert [result.sop_instance_uid for result in results] == ["1.2.840.1", "2.25." + "9" * 59, ""]


@pytest.mark.parametrize(
    "element",
    [
        b"\x08\x00\x19\x00UI\x08\x001.2.3.4\0",  # another one
        b"\x08\x00\x18\x00UI\x08\x00Secret^A",
        b"\x08\x00\x18\x00UI\x08\x001.2\\3.4\0",
        b"\x08\x00\x18\x00UI\x42\x00" + b"1" * 66,
        b"\x08\x00\x18\x00UI\x00\x00",
        b"\x08\x00\x18\x00SQ\x00\x00\xff\xff\xff\xff\xfe\xff\xdd\xe0\x00\x00\x00\x00",
    ],
)
def test_what_is_no_uid_is_not_passed_on(client: Client, element: bytes) -> None:
    whole = dicom(FRAMES[0])
    usual = b"\x08\x00\x18\x00UI\x08\x001.2.3.4\0"
    assert usual in whole
    (result,) = client.classify(whole.replace(usual, element), MODEL).results
    assert result.sop_instance_uid == ""
    assert result.labels == client.classify(FRAMES[0], MODEL).results[0].labels


def test_a_request_without_a_frame_is_told_that_there_are_several(client: Client) -> None:
    (result,) = client.classify(dicom(FRAMES, frames=5), MODEL).results
    (said,) = [warning for warning in result.warnings if warning.kind == ImageWarningKind.FIRST_OF_SEVERAL]
    assert said.message == "has 5 frames; only the first is read"
    (result,) = client.classify(dicom(FRAMES, frames=5), MODEL, frame=1).results
    assert ImageWarningKind.FIRST_OF_SEVERAL not in [warning.kind for warning in result.warnings]


def test_a_frame_that_is_not_there_is_refused_by_its_own_field(client: Client) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        client.classify([dicom(FRAMES, frames=5)], MODEL, frame=5)
    assert {one.field: one.description for one in caught.value.violations} == {
        "images[0].frame": "is 5, expected 0 to 4"
    }
    with pytest.raises(InvalidArgumentError, match=r"images\[0\]\.frame: is 1, but only DICOM files"):
        client.classify(FRAMES[0], MODEL, frame=1)


def test_no_patient_gets_into_the_log_or_an_error(logged: tuple[ServerProcess, Path]) -> None:
    server, log = logged
    whole = dicom(FRAMES, frames=5)
    fine = whole + b"padding"
    broken = [
        whole[:-3000],
        whole[:400],
        whole.replace(b"CS\x0c\x00MONOCHROME2", b"PN\x0c\x00" + PATIENT[0][:12].encode()),
        whole.replace(b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00LO\x02\x00"),
        whole.replace(b"1.2.840.10008.1.2.1\0", PATIENT[1].encode().ljust(20)),
        dicom(FRAMES[0], syntax=uid.RLELossless, encoded=[PATIENT[1].encode() * 10]),
        dicom(FRAMES[0], syntax=uid.JPEG2000, encoded=[PATIENT[1].encode() * 10]),
        dicom(FRAMES[0], syntax=uid.JPEGLosslessSV1, encoded=[PATIENT[1].encode() * 10]),
        dicom(FRAMES[0]).replace(PATIENT[2].encode(), b"no date!"),
    ]
    said = ""
    with grpc.insecure_channel(server.target) as channel:
        stub = ImageClassificationStub(channel)
        for data in [*broken[:-1], whole[:132]]:
            with pytest.raises(grpc.RpcError) as caught:
                stub.Classify(pb.ClassifyRequest(model_name=MODEL, images=[pb.Image(encoded=data)]))
            assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
            found = violations(caught.value)
            assert list(found) == ["images[0].encoded"]
            said += str(found) + str(caught.value)
        for data in (fine, broken[-1]):  # what only pydicom minds
            request = pb.ClassifyRequest(model_name=MODEL, images=[pb.Image(encoded=data)])
            assert stub.Classify(request).results
    said += server.metrics() + log.read_text()
    assert not [word for word in PATIENT for part in (word, word[:12]) if part in said]
