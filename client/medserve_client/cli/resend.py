"""Requests of many items, of which the server may refuse some."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from medserve_client.errors import FieldViolation, InvalidArgumentError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def send_without_refused(
    send: Callable[[list[_Item]], Sequence[_Result]], items: Sequence[_Item]
) -> list[_Result | list[FieldViolation]]:
    """Sends the items together; takes out those that the server refuses, and sends the rest again.

    Args:
        send: returns one result for each item, in the same order.
        items: what to send.

    Returns:
        For each item its result, or what the server found wrong with it.

    Raises:
        InferenceError: the call failed for a reason that is not in the items.
    """
    outcomes: dict[int, _Result | list[FieldViolation]] = {}
    pending = list(range(len(items)))
    while pending:
        try:
            results = send([items[index] for index in pending])
        except InvalidArgumentError as error:
            refused = _by_item(error, len(pending))
            outcomes.update((pending[position], violations) for position, violations in refused.items())
            pending = [index for position, index in enumerate(pending) if position not in refused]
        else:
            outcomes.update(zip(pending, results, strict=True))
            pending = []
    return [outcomes[index] for index in range(len(items))]


def _by_item(error: InvalidArgumentError, count: int) -> dict[int, list[FieldViolation]]:
    """The violations of each item; raises the error itself where they are not about items alone."""
    refused: dict[int, list[FieldViolation]] = {}
    for violation in error.violations:
        if violation.item is None or violation.item >= count:
            raise error
        refused.setdefault(violation.item, []).append(violation)
    if not refused:
        raise error
    return refused
