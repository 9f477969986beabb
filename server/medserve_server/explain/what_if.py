"""What-if curves: the predicted risk of a patient as a function of one feature."""

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1.patient_risk_pb2 import WhatIf
from medserve_server.errors import FieldViolation
from medserve_server.inputs.patients import PatientReader

DEFAULT_POINTS = 21
MAX_POINTS = 200


def problems(request: WhatIf, reader: PatientReader) -> list[FieldViolation]:
    """Returns the violations in a what-if request."""
    column = reader.columns.get(request.feature)
    if column is None:
        text = reader.unknown(request.feature) if request.feature else "is empty; name a feature of the model"
        return [FieldViolation("reasons.what_if.feature", text)]
    if column.categories:
        return [
            FieldViolation(f"reasons.what_if.{name}", f"is set, but {column.name} is categorical; leave it unset")
            for name, is_set in (
                ("low", request.HasField("low")),
                ("high", request.HasField("high")),
                ("points", request.points > 0),
            )
            if is_set
        ]
    found = []
    low, high = _range(request, reader)
    for name, end in (("low", low), ("high", high)):
        try:
            column.number(end)
        except ValueError as error:
            found.append(FieldViolation(f"reasons.what_if.{name}", str(error)))
    if not found and low >= high:
        found.append(FieldViolation("reasons.what_if.high", f"is {high:g}, expected a value above low, {low:g}"))
    if request.points == 1 or request.points > MAX_POINTS:
        text = f"is {request.points}, expected 2 to {MAX_POINTS}, or 0 for {DEFAULT_POINTS}"
        found.append(FieldViolation("reasons.what_if.points", text))
    return found


def values(request: WhatIf, reader: PatientReader) -> NDArray[np.float64]:
    """Returns the feature's values along the curve in ascending order; for a categorical feature, all indices."""
    column = reader.columns[request.feature]
    if column.categories:
        return np.arange(len(column.categories), dtype=np.float64)
    steps = np.linspace(*_range(request, reader), request.points or DEFAULT_POINTS)
    return np.unique(np.round(steps)) if column.whole else steps


def _range(request: WhatIf, reader: PatientReader) -> tuple[float, float]:
    column = reader.columns[request.feature]
    low = request.low if request.HasField("low") else column.training_min
    high = request.high if request.HasField("high") else column.training_max
    return low, high
