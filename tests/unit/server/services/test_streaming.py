"""Streams: requests are processed concurrently and answered in order."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medserve_server.errors import InvalidInput, Unavailable
from medserve_server.services.streaming import answer_in_order
from waiting import PATIENCE


class Gates:
    """Answers each number when it is released; records which requests were read and started."""

    def __init__(self, count: int) -> None:
        self.read: list[int] = []
        self.in_flight: set[int] = set()
        self.most = 0
        self.cancelled: set[int] = set()
        self.open = [asyncio.Event() for _ in range(count)]
        self.stopping = asyncio.Event()

    async def requests(self) -> AsyncIterator[int]:
        for number in range(len(self.open)):
            self.read.append(number)
            yield number

    async def answer(self, number: int) -> int:
        self.in_flight.add(number)
        self.most = max(self.most, len(self.in_flight))
        try:
            await self.open[number].wait()
        except asyncio.CancelledError:
            self.cancelled.add(number)
            raise
        finally:
            self.in_flight.remove(number)
        return number * 2

    def stream(self, window: int, requests: AsyncIterator[int] | None = None) -> AsyncIterator[int]:
        return answer_in_order(requests or self.requests(), self.answer, self.stopping, window)


async def settled() -> None:
    """Lets every task run until it waits for the test."""
    for _ in range(50):
        await asyncio.sleep(0)


async def collect(answers: AsyncIterator[int], got: list[int]) -> None:
    """Collects the responses before an error."""
    async for answer in answers:
        got.append(answer)  # noqa: PERF401


def run(test: Callable[[], Coroutine[None, None, None]]) -> None:
    async def whole() -> None:
        await asyncio.wait_for(test(), PATIENCE)
        await settled()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "no task is left behind"

    asyncio.run(whole())


@given(order=st.permutations(range(8)), window=st.integers(1, 10))
def test_responses_are_in_request_order_whichever_is_ready_first(order: list[int], window: int) -> None:
    async def test() -> None:
        gates = Gates(len(order))

        async def let_through() -> None:
            for number in order:
                await settled()
                gates.open[number].set()

        letting = asyncio.create_task(let_through())
        assert [answer async for answer in gates.stream(window)] == [number * 2 for number in range(len(order))]
        await letting
        assert gates.most <= window

    run(test)


@pytest.mark.parametrize("window", [1, 2, 5])
def test_no_more_requests_are_read_than_fit_into_the_window(window: int) -> None:
    async def test() -> None:
        gates = Gates(20)
        answers = aiter(gates.stream(window))
        first = asyncio.ensure_future(anext(answers))
        await settled()
        assert len(gates.in_flight) == window
        assert len(gates.read) == window
        gates.open[0].set()
        assert await first == 0
        second = asyncio.ensure_future(anext(answers))
        await settled()
        assert len(gates.read) == window + 1, "each answer makes room for one request"
        gates.open[1].set()
        await second
        await answers.aclose()  # type: ignore[attr-defined]

    run(test)


def test_a_stopping_server_answers_the_requests_read_and_reads_no_more() -> None:
    async def test() -> None:
        gates = Gates(20)
        got: list[int] = []

        iterating = asyncio.create_task(collect(gates.stream(3), got))
        await settled()
        gates.stopping.set()
        await settled()
        read = list(gates.read)
        for gate in gates.open:
            gate.set()
        with pytest.raises(Unavailable, match="the server is stopping"):
            await iterating
        assert gates.read == read == [0, 1, 2]
        assert got == [0, 2, 4]

    run(test)


def test_an_error_of_reading_follows_the_responses_to_earlier_requests() -> None:
    async def test() -> None:
        gates = Gates(2)

        async def requests() -> AsyncIterator[int]:
            async for number in gates.requests():
                yield number
            raise InvalidInput.of("", "no message")

        for gate in gates.open:
            gate.set()
        got: list[int] = []
        with pytest.raises(InvalidInput, match="no message"):
            await collect(gates.stream(5, requests()), got)
        assert got == [0, 2]

    run(test)


@pytest.mark.parametrize("answered", [0, 1])
def test_a_disconnected_client_cancels_its_pending_requests(answered: int) -> None:
    async def test() -> None:
        gates = Gates(20)

        iterating = asyncio.create_task(collect(gates.stream(4), []))
        for number in range(answered):
            gates.open[number].set()
        await settled()
        in_flight = set(gates.in_flight)
        assert len(in_flight) == 4
        iterating.cancel()
        with pytest.raises(asyncio.CancelledError):
            await iterating
        await settled()
        assert gates.cancelled == in_flight

    run(test)


def test_a_stream_without_requests_has_no_responses() -> None:
    async def test() -> None:
        assert [answer async for answer in Gates(0).stream(3)] == []

    run(test)
