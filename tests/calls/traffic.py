"""Concurrent traffic with known results, which detects responses that belong to other requests."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

import grpc
import numpy as np
from grpc import aio
from numpy.typing import NDArray

from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from samples.onnx_models import TABLE

MODEL = "scaled"
BAD_CODE = len(TABLE)

if TYPE_CHECKING:  # only for the type checker
    from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceAsyncStub as Stub

Outcomes = Counter[grpc.StatusCode]


class Mixed(AssertionError):
    """A caller received something other than the response to its own request."""


class Lost(Mixed):
    """A caller received no response, or an unexplained status."""


@dataclass(frozen=True)
class Operation:
    """A call of the model `scaled`: a stream of requests, or unary with one."""

    rows: tuple[int, ...]
    """Number of rows of each request."""
    bad: frozenset[int] = frozenset()
    """Numbers of the requests that make the model fail."""
    stream: bool = False
    version: str = ""
    may_be_gone: bool = False
    """Whether the version is added and removed repeatedly."""
    cancel_after: float | None = None
    """Seconds."""
    timeout: float | None = None
    """Seconds."""

    @property
    def may_end_as(self) -> set[grpc.StatusCode]:
        """Returns the statuses that the client, or the removal of versions, may cause."""
        codes = {grpc.StatusCode.OK}
        if self.cancel_after is not None:
            codes.add(grpc.StatusCode.CANCELLED)
        if self.timeout is not None:
            codes.add(grpc.StatusCode.DEADLINE_EXCEEDED)
        if self.may_be_gone:
            codes.add(grpc.StatusCode.NOT_FOUND)
        return codes


@dataclass(frozen=True)
class Query:
    """One request, with the data needed to verify its response."""

    number: int
    x: NDArray[np.float32]
    code: NDArray[np.int64]
    version: str

    @property
    def bad(self) -> bool:
        """Returns whether the model must fail on this request."""
        return bool((self.code == BAD_CODE).any())

    def request(self) -> pb.ModelInferRequest:
        """Returns the request message."""
        request = pb.ModelInferRequest(model_name=MODEL, model_version=self.version, id=str(self.number))
        for name, datatype, array in (("x", "FP32", self.x), ("code", "INT64", self.code)):
            request.inputs.add(name=name, datatype=datatype, shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
        return request

    def check(self, response: pb.ModelInferResponse) -> None:
        """Checks a response against the expected one for the version that produced it.

        Raises:
            Mixed: the response differs.
        """
        if self.bad or response.id != str(self.number) or self.version not in {"", response.model_version}:
            raise Mixed(f"request {self.number} received the response to {response.id}")
        right = self.x * np.float32(int(response.model_version)) + np.array(TABLE, np.float32)[self.code]
        if response.raw_output_contents[0] != right.tobytes():
            raise Mixed(f"request {self.number} of {len(self.x)} rows received rows of another request")


def make_queries(operation: Operation, random: np.random.Generator) -> list[Query]:
    """Returns requests with unique rows."""
    found = []
    for index, rows in enumerate(operation.rows):
        x = random.integers(0, 2**20, (rows, 3)).astype(np.float32)  # times a small factor exact in float32
        code = random.integers(0, len(TABLE), (rows, 1))
        if index in operation.bad:
            code[random.integers(rows)] = BAD_CODE
        found.append(Query(int(random.integers(2**62)), x, code, operation.version))
    return found


async def drive(target: str, operations: Sequence[Operation], seed: int) -> Outcomes:
    """Performs all operations concurrently and counts the statuses of their requests.

    Raises:
        Mixed: a request received another one's response or failure, or none.
    """
    random = np.random.default_rng(seed)
    outcomes: Outcomes = Counter()
    async with aio.insecure_channel(target, [("grpc.enable_retries", 0)]) as channel:
        stub = GRPCInferenceServiceStub(channel)
        async with asyncio.TaskGroup() as group:
            for operation in operations:
                group.create_task(perform(stub, operation, random, outcomes))
    return outcomes


async def perform(stub: "Stub", operation: Operation, random: np.random.Generator, outcomes: Outcomes) -> None:
    """Performs one operation, as `drive` does."""
    call = _stream if operation.stream else _unary
    await call(stub, operation, make_queries(operation, random), outcomes)


async def _unary(stub: "Stub", operation: Operation, queries: list[Query], outcomes: Outcomes) -> None:
    (query,) = queries
    call = stub.ModelInfer(query.request(), timeout=operation.timeout)
    if operation.cancel_after is not None:
        asyncio.get_running_loop().call_later(operation.cancel_after, call.cancel)
    code = await call.code()
    outcomes[code] += 1
    # grpc's client returns a message unparsed if the deadline passes at that moment.
    details = unquote(await call.details() or "")
    expected = code in operation.may_end_as or code is _expected_refusal(operation, details)
    if not expected and not (query.bad and code is grpc.StatusCode.INTERNAL):
        raise Lost(f"request {query.number} ended as {code.name}: {details}")
    if code is grpc.StatusCode.OK:
        query.check(await call)


def _expected_refusal(operation: Operation, message: str) -> grpc.StatusCode | None:
    """Returns the status of an error with this message, if the operation may end with it."""
    if operation.may_be_gone and message.startswith("model_version: "):
        return grpc.StatusCode.NOT_FOUND
    if operation.timeout is not None and " and the deadline leaves " in message:
        return grpc.StatusCode.RESOURCE_EXHAUSTED
    return None


async def _stream(stub: "Stub", operation: Operation, queries: list[Query], outcomes: Outcomes) -> None:
    def requests() -> Iterator[pb.ModelInferRequest]:
        return (query.request() for query in queries)

    call = stub.ModelStreamInfer(requests(), timeout=operation.timeout)
    if operation.cancel_after is not None:
        asyncio.get_running_loop().call_later(operation.cancel_after, call.cancel)
    answered = 0
    try:
        async for response in call:
            query = queries[answered]
            answered += 1
            failed = bool(response.error_message)
            if refusal := _expected_refusal(operation, response.error_message):
                outcomes[refusal] += 1
                continue
            outcomes[grpc.StatusCode.INTERNAL if failed else grpc.StatusCode.OK] += 1
            if failed != query.bad:
                raise Mixed(f"request {query.number} of a stream failed with {response.error_message!r}")
            if not failed:
                query.check(response.infer_response)
    except (aio.AioRpcError, asyncio.CancelledError):
        if await call.code() not in operation.may_end_as - {grpc.StatusCode.OK}:
            raise
        outcomes[await call.code()] += len(queries) - answered
        return
    if answered != len(queries):
        raise Lost(f"a stream of {len(queries)} requests received {answered} responses")
