"""The unit of work of the inference engine: the rows of one request."""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medserve_server.engine.session import Tensors
from medserve_server.errors import ServingError
from medserve_server.telemetry.call_record import CallRecord

if TYPE_CHECKING:  # plan imports this module
    from medserve_server.engine.plan import Batch

Arrays = dict[str, NDArray[np.generic]]
Outcome = Arrays | ServingError

DEFAULT_PRIORITY = 2
"""Lower numbers are run first."""


@dataclass(slots=True, eq=False)
class Work:
    """The rows of one request, or of a part of it."""

    inputs: Tensors
    rows: int
    outputs: tuple[str, ...]
    """Names of the requested outputs."""
    deliver: "Deliver"
    """Callback, called in the model's thread with all outcomes of a run whose work shares this callback."""
    deadline: float | None = None
    """On the clock of `time.monotonic`; None if there is no deadline."""
    priority: int = DEFAULT_PRIORITY
    tag: object = None
    """Opaque value by which `deliver` identifies the request."""
    cancelled: bool = False
    """Set by `Batcher.withdraw`; the outcome is not delivered."""
    answered: bool = False
    """Whether the outcome has been delivered."""
    part_of: "Work | None" = None
    """The split request of which this is a part."""
    parts: "Sequence[Work]" = ()
    """The parts queued in its place if it has more rows than a batch."""
    record: CallRecord | None = None
    """Where the timing of its run is recorded."""
    since: float = field(default_factory=time.monotonic)
    """Time at which it was created, on the clock of `time.monotonic`."""
    batch: "Batch | None" = None
    """The batch in which it is queued; None if it is not queued."""
    key: Hashable = None
    """Work with equal keys may share a batch; by default, equal outputs, dtypes and row shapes give equal keys."""

    def __post_init__(self) -> None:
        """Derives the key if none was given."""
        if self.key is None:
            self.key = self.outputs, *[(name, array.dtype, array.shape[1:]) for name, array in self.inputs.items()]

    @property
    def withdrawn(self) -> bool:
        """Whether this work, or the request of which it is a part, has been cancelled."""
        return self.cancelled or (self.part_of is not None and self.part_of.cancelled)


Deliver = Callable[[list[tuple[Work, Outcome]]], None]
