"""What-if curves: the risk of a patient with other values of one feature."""

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1.patient_risk_pb2 import WhatIf
from medserve_server.errors import FieldViolation
from medserve_server.inputs.patients import PatientReader

POINTS = 21
MOST_POINTS = 200


def problems(wish: WhatIf, reader: PatientReader) -> list[FieldViolation]:
    """What is wrong with a wish."""
    column = reader.columns.get(wish.feature)
    if column is None:
        text = reader.unknown(wish.feature) if wish.feature else "is empty; name a feature of the model"
        return [FieldViolation("reasons.what_if.feature", text)]
    if column.categories:
        return [
            FieldViolation(f"reasons.what_if.{name}", f"is set, but {column.name} is a category, asked in full")
            for name, is_set in (
                ("low", wish.HasField("low")),
                ("high", wish.HasField("high")),
                ("points", wish.points > 0),
            )
            if is_set
        ]
    found = []
    low, high = _range(wish, reader)
    for name, end in (("low", low), ("high", high)):
        try:
            column.number(end)
        except ValueError as error:
            found.append(FieldViolation(f"reasons.what_if.{name}", str(error)))
    if not found and low >= high:
        found.append(FieldViolation("reasons.what_if.high", f"is {high:g}, expected more than low, {low:g}"))
    if wish.points == 1 or wish.points > MOST_POINTS:
        text = f"is {wish.points}, expected 2 to {MOST_POINTS}, or 0 for {POINTS}"
        found.append(FieldViolation("reasons.what_if.points", text))
    return found


def values(wish: WhatIf, reader: PatientReader) -> NDArray[np.float64]:
    """The feature's values along the curve, rising; of a category all its indices."""
    column = reader.columns[wish.feature]
    if column.categories:
        return np.arange(len(column.categories), dtype=np.float64)
    steps = np.linspace(*_range(wish, reader), wish.points or POINTS)
    return np.unique(np.round(steps)) if column.whole else steps


def _range(wish: WhatIf, reader: PatientReader) -> tuple[float, float]:
    column = reader.columns[wish.feature]
    low = wish.low if wish.HasField("low") else column.training_min
    high = wish.high if wish.HasField("high") else column.training_max
    return low, high
