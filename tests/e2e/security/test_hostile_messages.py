"""Random messages and frames: the server returns an appropriate status for each and keeps running."""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc import aio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.messages import messages
from medserve_proto.inference import grpc_service_pb2
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from medserve_proto.v1 import image_classification_pb2, image_segmentation_pb2, model_catalog_pb2, patient_risk_pb2
from servers.server_process import ServerProcess, running_server
from waiting import PATIENCE

EXAMPLES = int(os.environ.get("MEDSERVE_FUZZ_EXAMPLES", "60"))
"""Of 20 calls each; a long run sets it higher."""

CONTRACTS = (
    image_classification_pb2,
    image_segmentation_pb2,
    patient_risk_pb2,
    model_catalog_pb2,
    grpc_service_pb2,
)
METHODS: list[MethodDescriptor] = [
    method
    for contract in CONTRACTS
    for service in contract.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
SENSIBLE = {
    grpc.StatusCode.OK,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
}


@pytest.fixture(scope="module")
def fuzzed(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, Path]]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    with running_server("--transport", transport, "--log-level", "warning", log=log) as server:
        yield server, log


calls = st.sampled_from(METHODS).flatmap(lambda method: st.tuples(st.just(method), messages(method.input_type)))


async def send(target: str, batch: list[tuple[MethodDescriptor, Message]]) -> list[grpc.StatusCode]:
    async with aio.insecure_channel(target) as channel:

        async def one(method: MethodDescriptor, message: Message) -> grpc.StatusCode:
            path, payload = f"/{method.containing_service.full_name}/{method.name}", message.SerializeToString()
            if method.client_streaming:
                stream: Any = channel.stream_stream(path)
                call = stream(iter([payload, payload]), timeout=PATIENCE)
                with contextlib.suppress(aio.AioRpcError):  # the status is read below
                    async for _ in call:
                        pass
            else:
                unary: Any = channel.unary_unary(path)
                call = unary(payload, timeout=PATIENCE)
            code: grpc.StatusCode = await call.code()
            return code

        return await asyncio.gather(*(one(*call) for call in batch))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(batch=st.lists(calls, min_size=20, max_size=20))
def test_every_message_gets_an_appropriate_status(
    fuzzed: tuple[ServerProcess, Path], batch: list[tuple[MethodDescriptor, Message]]
) -> None:
    codes = asyncio.run(send(fuzzed[0].target, batch))
    assert set(codes) <= SENSIBLE
    assert "bug" not in fuzzed[1].read_text()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def frames(seed: int) -> bytes:
    """Returns a connection preface and frames of random types, flags, streams, lengths and contents."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    wire = (PREFACE + SETTINGS)[: chance.choice([None, None, None, 10])]
    for _ in range(chance.randrange(1, 8)):
        content = chance.randbytes(chance.randrange(80))
        length = chance.choice([len(content), len(content), chance.randrange(2**24)])
        stream = chance.choice([0, 1, 3, 5, 2**31 - 1])
        kind = bytes([chance.randrange(12), chance.randrange(256)])
        wire += length.to_bytes(3, "big") + kind + stream.to_bytes(4, "big") + content
    return wire


def test_malformed_frames_do_not_affect_other_connections(fuzzed: tuple[ServerProcess, Path]) -> None:
    server = fuzzed[0]
    host, port = server.target.rsplit(":", 1)
    with grpc.insecure_channel(server.target) as channel:
        for seed in range(EXAMPLES * 5):
            with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
                connection.sendall(frames(seed))
                connection.settimeout(0.01)
                with contextlib.suppress(OSError):  # the server sent nothing, or closed the connection
                    connection.recv(4096)
            if seed % 50 == 0:
                assert GRPCInferenceServiceStub(channel).ServerLive(grpc_service_pb2.ServerLiveRequest()).live
