"""One request's rows on their way through a model."""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medserve_server.engine.session import Tensors
from medserve_server.errors import ServingError
from medserve_server.telemetry.call_record import CallRecord

if TYPE_CHECKING:  # a batch holds works
    from medserve_server.engine.plan import Batch

Arrays = dict[str, NDArray[np.generic]]
Outcome = Arrays | ServingError

DEFAULT_PRIORITY = 2
"""1 goes before, 3 and more behind."""


@dataclass(slots=True, eq=False)
class Work:
    """Rows of one request, or a part of them."""

    inputs: Tensors
    rows: int
    outputs: tuple[str, ...]
    """Names of the wanted outputs."""
    deliver: "Deliver"
    """Called in the model's thread with all outcomes of a run whose work has the same `deliver`."""
    deadline: float | None = None
    """On the clock of `time.monotonic`; None: no deadline."""
    priority: int = DEFAULT_PRIORITY
    receipt: object = None
    """Whatever `deliver` needs to find the request again."""
    cancelled: bool = False
    """Set by `Batcher.withdraw`: nothing is delivered any more."""
    answered: bool = False
    """Its outcome was delivered."""
    part_of: "Work | None" = None
    parts: "Sequence[Work]" = ()
    """What was queued in its place, where it has more rows than a batch."""
    record: CallRecord | None = None
    """Where its run is noted."""
    since: float = field(default_factory=time.monotonic)
    batch: "Batch | None" = None
    """Where it waits; None where it does not."""
    key: Hashable = None
    """Work with equal keys may share a batch; by default that of equal outputs and equal rows."""

    def __post_init__(self) -> None:
        """Makes the key where none was given."""
        if self.key is None:
            self.key = self.outputs, *[(name, array.dtype, array.shape[1:]) for name, array in self.inputs.items()]

    @property
    def withdrawn(self) -> bool:
        """Whether nobody waits for the outcome any more."""
        return self.cancelled or (self.part_of is not None and self.part_of.cancelled)


Deliver = Callable[[list[tuple[Work, Outcome]]], None]
