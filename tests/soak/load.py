"""Mixed load that checks every response against the expected one."""

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
import numpy as np
import onnxruntime as ort
from grpc import aio

from calls.traffic import Lost, Mixed, Operation, Outcomes, perform
from medserve_client import AsyncClient, InvalidArgumentError
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from samples.patient import PATIENT
from servers.server_process import REPOSITORY
from waiting import PATIENCE

if TYPE_CHECKING:  # only for the type checker
    from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceAsyncStub as Stub

TOLERANCE = 1e-5


@dataclass
class Tally:
    """Outcomes of the requests."""

    outcomes: Outcomes = field(default_factory=Counter)
    """Number of requests by status; each status was expected, unless the request is in `wrong` or `lost`."""
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    """Latencies in seconds of unary calls since `drain_latencies`."""

    def total(self) -> int:
        """Returns the number of requests that have ended, with any outcome."""
        return self.outcomes.total() + len(self.wrong) + len(self.lost)

    def drain_latencies(self) -> tuple[float, float]:
        """Returns the median and 99th percentile in milliseconds since the last call; 0 if there were too few."""
        found, self.latencies = self.latencies, []
        if len(found) < 2:
            return 0.0, 0.0
        cuts = statistics.quantiles(found, n=100, method="inclusive")
        return 1000 * cuts[49], 1000 * cuts[98]


class Callers:
    """Tasks that call a server until they are stopped."""

    def __init__(self, target: str, count: int, seed: int) -> None:
        self.tally = Tally()
        self._target = target
        self._count = count
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._numbers = np.random.default_rng(seed)
        self._images = self._numbers.integers(0, 256, (16, 28, 28), np.uint8)
        self._right = _probabilities(self._images)
        self._over = False

    def stop(self) -> None:
        """Stops every caller after its current call."""
        self._over = True

    async def run(self) -> None:
        """Calls until `stop`."""
        async with AsyncExitStack() as stack:
            tasks = []
            for _ in range(self._count):
                channel = await stack.enter_async_context(
                    aio.insecure_channel(
                        self._target, [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
                    )
                )
                client = await stack.enter_async_context(AsyncClient(self._target))
                tasks.append(self._call(GRPCInferenceServiceStub(channel), client))
            await asyncio.gather(*tasks)

    async def _call(self, stub: "Stub", client: AsyncClient) -> None:
        risks = (await client.predict_risk(PATIENT, "breast-cancer-risk")).results[0].risks
        calls: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (60, lambda: self._tensors(stub)),
            (20, lambda: self._classify(client)),
            (10, lambda: self._risk(client, [risk.risk for risk in risks])),
            (10, lambda: self._bad(client)),
        ]
        kinds = [call for weight, call in calls for _ in range(weight)]
        while not self._over:
            try:
                await asyncio.wait_for(self._random.choice(kinds)(), PATIENCE)
            except Lost as error:
                self.tally.lost.append(str(error))
            except Mixed as error:
                self.tally.wrong.append(str(error))
            except Exception as error:  # noqa: BLE001 - any error is reported
                self.tally.lost.append(f"{type(error).__name__}: {error}"[:500])

    async def _tensors(self, stub: "Stub") -> None:
        operation = self._operation()
        began = time.monotonic()
        await perform(stub, operation, self._numbers, self.tally.outcomes)
        if not operation.stream and operation.cancel_after is None and operation.timeout is None:
            self.tally.latencies.append(time.monotonic() - began)

    def _operation(self) -> Operation:
        pick = self._random
        version = pick.choice(["", "", "1", "2", "3"])
        stream = pick.random() < 0.2
        count = pick.randint(1, 20) if stream else 1
        most = 8 if stream or pick.random() < 0.7 else 150
        return Operation(
            rows=tuple(pick.randint(1, most) for _ in range(count)),
            bad=frozenset({0}) if pick.random() < 0.05 else frozenset(),
            stream=stream,
            version=version,
            may_be_gone=version == "3",
            cancel_after=pick.choice([0.0, 0.001, 0.01]) if pick.random() < 0.1 else None,
            timeout=pick.choice([0.001, 0.01]) if not stream and pick.random() < 0.1 else None,
        )

    async def _classify(self, client: AsyncClient) -> None:
        chosen = [self._random.randrange(len(self._images)) for _ in range(self._random.choice([1, 1, 1, 8]))]
        response = await client.classify([self._images[index] for index in chosen], "chest-xray")
        for index, result in zip(chosen, response.results, strict=True):
            found = next(label.probability for label in result.labels if label.label == "pneumonia")
            if abs(found - self._right[index]) > TOLERANCE:
                raise Mixed(f"image {index} gave {found}, expected {self._right[index]}")
        self.tally.outcomes[grpc.StatusCode.OK] += 1

    async def _risk(self, client: AsyncClient, right: list[float]) -> None:
        (result,) = (await client.predict_risk(PATIENT, "breast-cancer-risk")).results
        if [risk.risk for risk in result.risks] != right:
            raise Mixed("a patient's risk is another than before")
        self.tally.outcomes[grpc.StatusCode.OK] += 1

    async def _bad(self, client: AsyncClient) -> None:
        try:
            await client.predict_risk({**PATIENT, "age": 999}, "breast-cancer-risk")
        except InvalidArgumentError:
            self.tally.outcomes[grpc.StatusCode.INVALID_ARGUMENT] += 1
        else:
            raise Mixed("a patient of 999 years was answered")


def _probabilities(images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> list[float]:
    """Returns the probability of pneumonia from ONNX Runtime alone."""
    session = ort.InferenceSession(REPOSITORY / "models/chest-xray/1/model.onnx")
    (rows,) = session.run(["probabilities"], {"image": images[..., None]})
    return [float(row[1]) for row in rows]
