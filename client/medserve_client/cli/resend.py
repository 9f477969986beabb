"""Sends batches of items such that a failing item does not fail the others."""

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

# Statuses that may be caused by a single item, or by the size of the request as a whole.
_CAUSED_BY_ITEMS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.DATA_LOSS,
}


class ItemSender(Generic[_Item, _Result]):
    """Sends items together; on failure, resends without the items that the server named, or else in halves.

    Args:
        send: sends a list of items and returns one result for each, in the same order.
    """

    def __init__(self, send: Callable[[list[_Item]], Sequence[_Result]]) -> None:
        self._send = send
        self._timed_out = False

    def outcomes(self, items: list[_Item]) -> list[_Result | list[FieldViolation] | InferenceError]:
        """Sends the items.

        Returns:
            For each item its result, its field violations, or the error of a request with only this item.

        Raises:
            InferenceError: a call failed for a reason unrelated to the items, or two consecutive requests with a
                single item timed out.
        """
        if not items:
            return []
        try:
            results = self._send(items)
        except InferenceError as error:
            if error.code not in _CAUSED_BY_ITEMS or isinstance(error, OverloadedError):
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
        """Returns the error of one item; raises it if it concerns every request or if the server seems to hang."""
        timed_out = isinstance(error, DeadlineExceededError)
        if isinstance(error, InvalidArgumentError) or (timed_out and self._timed_out):
            raise error
        self._timed_out = timed_out
        return error


def _by_item(error: InvalidArgumentError, count: int) -> dict[int, list[FieldViolation]]:
    """Returns the violations of each item; empty if some are not about an item."""
    refused: dict[int, list[FieldViolation]] = {}
    for violation in error.violations:
        if violation.item is None or violation.item >= count:
            return {}
        refused.setdefault(violation.item, []).append(violation)
    return refused
