"""AsyncClient against a real server: the same results and errors as Client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from medserve_client import (
    AsyncClient,
    ClassificationResponse,
    Client,
    HealthStatus,
    InferenceError,
    InvalidArgumentError,
    NotFoundError,
    RiskResponse,
    UnavailableError,
)


async def test_results_equal_those_of_the_synchronous_client(clinic: str, tmp_path: Path) -> None:
    path = tmp_path / "xray.png"
    path.write_bytes(b"four")
    with Client(clinic) as client:
        expected = (client.models(), client.describe("lungs"), client.classify(path, "lungs", top_k=1, frame=2))
        risks = client.predict_risk({"age": 40}, "relapse").results[0].risks
    async with AsyncClient(clinic) as client_:
        assert expected == (
            await client_.models(),
            await client_.describe("lungs"),
            await client_.classify(path, "lungs", top_k=1, frame=2),
        )
        assert (await client_.predict_risk({"age": 40}, "relapse")).results[0].risks == risks
        assert await client_.health() is HealthStatus.SERVING


async def test_errors_equal_those_of_the_synchronous_client(clinic: str) -> None:
    async with AsyncClient(clinic) as client:
        with pytest.raises(NotFoundError, match="no model liver here"):
            await client.describe("liver")
        with pytest.raises(InvalidArgumentError) as caught:
            await client.predict_risk({"age": 130}, "relapse")
        assert [violation.feature for violation in caught.value.violations] == ["age"]
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(UnavailableError):
            await client.models()


async def test_calls_run_concurrently(clinic: str) -> None:
    async with AsyncClient(clinic) as client:
        responses = await asyncio.gather(*(client.predict_risk({"age": age}, "relapse") for age in range(50)))
    messages = [response.results[0].warnings[0].message for response in responses]
    assert messages == [f"age number {age}" for age in range(50)]


async def test_a_stream_accepts_a_list(clinic: str) -> None:
    async with AsyncClient(clinic) as client:
        outcomes = [outcome async for outcome in client.classify_stream([b"one", b"bad", [b"a", b"b"]], "lungs")]
    assert [type(outcome) for outcome in outcomes] == [
        ClassificationResponse,
        InvalidArgumentError,
        ClassificationResponse,
    ]


async def test_an_exception_of_an_async_source_is_raised_after_the_preceding_responses(clinic: str) -> None:
    async def batches() -> AsyncIterator[dict[str, float]]:
        yield {"age": 40.0}
        raise RuntimeError("the ward is closed")

    async with AsyncClient(clinic) as client:
        outcomes = client.predict_risk_stream(batches(), "relapse")
        assert isinstance(await anext(outcomes), RiskResponse)
        with pytest.raises(RuntimeError, match="the ward is closed"):
            await anext(outcomes)


async def test_a_stream_can_be_left_early(clinic: str) -> None:
    async def forever() -> AsyncIterator[dict[str, float]]:
        while True:
            yield {"age": 40.0}

    async with AsyncClient(clinic) as client:
        async with aclosing(client.predict_risk_stream(forever(), "relapse")) as outcomes:
            assert isinstance(await anext(outcomes), RiskResponse)
        assert await client.models()


def test_a_client_may_be_created_before_the_event_loop(clinic: str) -> None:
    client = AsyncClient(clinic)
    assert asyncio.run(client.health()) is HealthStatus.SERVING

    async def use() -> list[ClassificationResponse | InferenceError]:
        stream = client.classify_stream([b"one", b"two"], "lungs")
        return [outcome async for outcome in stream]

    assert len(asyncio.run(use())) == 2, "in a second event loop"

    async def leave() -> None:
        async with client:
            await client.classify(b"one", "lungs")

    asyncio.run(leave())
    asyncio.run(client.close())


def test_a_stream_may_be_created_before_the_event_loop(clinic: str) -> None:
    client = AsyncClient(clinic)
    stream = client.predict_risk_stream([{"age": 40.0}], "relapse")

    async def use() -> None:
        assert [type(outcome) async for outcome in stream] == [RiskResponse]
        await client.close()

    asyncio.run(use())


async def test_an_unused_client_can_be_closed() -> None:
    await AsyncClient("127.0.0.1:1").close()


async def test_use_in_two_open_event_loops_is_an_error(clinic: str) -> None:
    async with AsyncClient(clinic) as client:
        await client.health()
        with pytest.raises(RuntimeError, match="this AsyncClient is in use by another open event loop"):
            await asyncio.to_thread(lambda: asyncio.run(client.health()))
        assert await client.health() is HealthStatus.SERVING
