"""Requests of many items, of which some may fail without taking the others with them."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import grpc

from medserve_client.errors import (
    DeadlineExceededError,
    FieldViolation,
    InferenceError,
    InvalidArgumentError,
    OverloadedError,
)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# A request may fail with these for what one of its items does, or for being too large as a whole.
_ABOUT_ITEMS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.DATA_LOSS,
}


class ItemSender(Generic[_Item, _Result]):
    """Sends items together, and again without those that the server names, or in halves where it names none.

    Args:
        send: Returns one result for each item, in the same order.
    """

    def __init__(self, send: Callable[[list[_Item]], Sequence[_Result]]) -> None:
        self._send = send
        self._timed_out = False

    def outcomes(self, items: list[_Item]) -> list[_Result | list[FieldViolation] | InferenceError]:
        """Sends the items.

        Returns:
            For each item its result, what the server found wrong with it, or the error of a request of it alone.

        Raises:
            InferenceError: A call failed for a reason that is not in the items, or two items in a row timed out alone.
        """
        if not items:
            return []
        try:
            results = self._send(items)
        except InferenceError as error:
            if error.code not in _ABOUT_ITEMS or isinstance(error, OverloadedError):
                raise
            if isinstance(error, InvalidArgumentError) and (refused := _by_item(error, len(items))):
                rest = iter(self.outcomes([item for index, item in enumerate(items) if index not in refused]))
                return [refused[index] if index in refused else next(rest) for index in range(len(items))]
            if len(items) == 1:
                return [self._alone(error)]
        else:
            self._timed_out = False
            return [result for _, result in zip(items, results, strict=True)]
        middle = len(items) // 2
        return self.outcomes(items[:middle]) + self.outcomes(items[middle:])

    def _alone(self, error: InferenceError) -> InferenceError:
        """The error of one item; raises it where it is about every request, or where the server seems to hang."""
        timed_out = isinstance(error, DeadlineExceededError)
        if isinstance(error, InvalidArgumentError) or (timed_out and self._timed_out):
            raise error
        self._timed_out = timed_out
        return error


def _by_item(error: InvalidArgumentError, count: int) -> dict[int, list[FieldViolation]]:
    """The violations of each item; none where some are not about an item."""
    refused: dict[int, list[FieldViolation]] = {}
    for violation in error.violations:
        if violation.item is None or violation.item >= count:
            return {}
        refused.setdefault(violation.item, []).append(violation)
    return refused
