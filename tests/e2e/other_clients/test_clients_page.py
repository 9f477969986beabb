"""Runs the programs in docs/clients.md with the real server and compares their output with the page."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.json_format import Parse
from PIL import Image

from documented import Block, Reader, blocks
from medserve_proto.v1.image_classification_pb2 import DESCRIPTOR as CLASSIFICATION
from medserve_proto.v1.patient_risk_pb2 import DESCRIPTOR as RISK
from programs import environment_python, node_modules, program
from servers.server_process import REPOSITORY
from waiting import PATIENCE

NODE = REPOSITORY / "tests/e2e/node"
PAGE = "docs/clients.md"
DESCRIPTORS = {
    service.full_name: service for file in (CLASSIFICATION, RISK) for service in file.services_by_name.values()
}
RUN = ("curl", "grpcurl", "Python", "Node.js")

LISTED = {
    "pip install": "make proto-check does it",
    "npm install": "make test-tools does it",
    "go mod init": "needs Go and its module proxy",
    "gradle run": "needs Gradle and Maven's repository",
}
"""Commands that no test runs, by how their block begins."""


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with ExitStack() as stack:
        reader = Reader(tmp_path, stack)
        Image.radial_gradient("L").save(tmp_path / "picture.png")
        reader.serve()
        yield reader


def section(heading: str) -> list[Block]:
    """Returns the executable blocks below a heading."""
    return [block for block in blocks(PAGE, heading) if not block.text.startswith(tuple(LISTED))]


def follow(reader: Reader, heading: str) -> None:
    for block in section(heading):
        if block.language == "text":
            assert reader.output == block.text
        else:
            assert reader.run(block) == [], f"{block.text}\n{reader.output}{reader.errors}"


def test_curl(reader: Reader) -> None:
    program("curl", "curl")
    classify, predict = section("curl")
    assert reader.run(classify) == [], reader.errors
    assert json.loads(reader.output)["results"][0]["labels"][0]["label"] == "pneumonia"
    assert reader.run(predict) == [], reader.errors
    assert [risk["horizon"] for risk in json.loads(reader.output)["results"][0]["risks"]] == [
        "1 year",
        "3 years",
        "5 years",
    ]


@pytest.mark.parametrize("number", [0, 1])
def test_grpcurl_command_has_a_valid_method_and_request(reader: Reader, number: int) -> None:
    # grpcurl has no package that tests could install: a script prints its arguments, and standard input for -d @.
    stand_in = reader.folder / "grpcurl"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n[ "$5" = @ ] && cat\n[ "$1" = -plaintext ]\n')
    stand_in.chmod(0o755)
    reader.environment["PATH"] = f"{reader.folder}:{reader.environment['PATH']}"
    reader.run(section("grpcurl")[number])
    plaintext, limit, seconds, data, request, address, method, written = reader.output.split("\0")
    assert (plaintext, limit, seconds, data) == ("-plaintext", "-max-time", "10", "-d")
    assert address == reader.address
    service, _, name = method.rpartition("/")
    descriptor = DESCRIPTORS[service].methods_by_name[name]
    message, response = map(message_factory.GetMessageClass, (descriptor.input_type, descriptor.output_type))
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(f"/{method}", message.SerializeToString, response.FromString)
        assert call(Parse(written if request == "@" else request, message()), timeout=PATIENCE).ByteSize()


def test_python(reader: Reader) -> None:
    commands = environment_python("proto").parent
    reader.environment["PATH"] = f"{commands}{os.pathsep}{reader.environment['PATH']}"
    follow(reader, "Python")


def test_node(reader: Reader) -> None:
    program("node", "nodejs")
    (reader.folder / "node_modules").symlink_to(node_modules(NODE))
    follow(reader, "Node.js")
    assert "encoded" in (reader.folder / "types/medserve/v1/Image.ts").read_text()


def test_every_block_is_run_or_listed() -> None:
    run = [block for heading in RUN for block in section(heading)]
    others = [block for block in blocks(PAGE) if block not in run and not block.title]
    for start in LISTED:
        assert [block.text.startswith(start) for block in others].count(True) == 1, start
    assert len(others) == len(LISTED), "run or list each"
