"""medserve.v1.PatientRisk."""

import asyncio
from collections.abc import AsyncIterator

import numpy as np
from numpy.typing import NDArray

from medserve_proto.v1 import patient_risk_pb2 as pb
from medserve_proto.v1.manifest_pb2 import PatientRiskTask
from medserve_proto.v1.patient_risk_pb2_grpc import PatientRiskServicer
from medserve_server.config import Settings
from medserve_server.errors import InferenceFailed, InvalidInput, ServingError, WrongModel
from medserve_server.interceptors import Context, to_status
from medserve_server.model import Model
from medserve_server.patients import PatientReader, PatientWarning, Value
from medserve_server.repository import ModelRepository
from medserve_server.services.deadline import deadline_of
from medserve_server.services.streaming import answer_in_order

API = "patient_risk"


class PatientRisk(PatientRiskServicer):
    """Reads patients, asks the model, and reads risks and groups off the survival curve."""

    def __init__(self, models: ModelRepository, settings: Settings, stopping: asyncio.Event) -> None:
        self._models = models
        self._max_patients = settings.max_request_rows
        self._window = settings.stream_window
        self._stopping = stopping

    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        """Answers one request."""
        return await self._predict(request, deadline_of(context))

    async def PredictStream(
        self, request_iterator: AsyncIterator[pb.PredictRequest], context: Context
    ) -> AsyncIterator[pb.PredictStreamResponse]:
        """Answers many requests in their order, errors in their place."""
        deadline = deadline_of(context)

        async def answer(request: pb.PredictRequest) -> pb.PredictStreamResponse:
            try:
                response = await self._predict(request, deadline)
            except ServingError as error:
                return pb.PredictStreamResponse(error=to_status(error), request_id=request.request_id)
            return pb.PredictStreamResponse(response=response, request_id=request.request_id)

        async for response in answer_in_order(request_iterator, answer, self._stopping, self._window):
            yield response

    async def _predict(self, request: pb.PredictRequest, deadline: float | None) -> pb.PredictResponse:
        model = self._models.get(request.model_name, request.model_version)
        with model.metrics.request(API):
            if model.manifest is None or not isinstance(model.reader, PatientReader):
                raise WrongModel(f"model {model.name} predicts no risk; ModelCatalog lists what each one does")
            if not 1 <= len(request.patients) <= self._max_patients:
                count = len(request.patients)
                raise InvalidInput.of("patients", f"has {count} entries, expected 1 to {self._max_patients}")
            rows, warnings = model.reader.read([_values(patient) for patient in request.patients])
            outputs = await model.infer({"features": rows}, len(rows), deadline=deadline)
            survival = outputs["survival"]
            if not np.isfinite(survival).all():
                raise InferenceFailed(f"model {model.name} gave a probability that is no number")
            return _response(request, model, model.manifest.patient_risk, survival, warnings)


def _values(patient: pb.Patient) -> list[tuple[str, Value]]:
    values: list[tuple[str, Value]] = []
    for entry in patient.features:
        kind = entry.value.WhichOneof("value")
        values.append((entry.key, None if kind is None else getattr(entry.value, kind)))
    return values


def _response(
    request: pb.PredictRequest,
    model: Model,
    task: PatientRiskTask,
    survival: NDArray[np.generic],
    warnings: list[list[PatientWarning]],
) -> pb.PredictResponse:
    response = pb.PredictResponse(model_name=model.name, model_version=model.version, request_id=request.request_id)
    times = list(task.curve_times)
    horizons = [(horizon.label, horizon.time, times.index(horizon.time)) for horizon in task.horizons]
    reference = next(column for label, _, column in horizons if label == task.reference_horizon)
    groups = [(group.risk_below, group.label) for group in task.risk_groups]
    for row, found in zip(survival.tolist(), warnings, strict=True):
        result = response.results.add(
            survival=pb.SurvivalCurve(times=times, probabilities=row),
            risk_group=next(label for below, label in groups if 1 - row[reference] < below),
        )
        for label, time, column in horizons:
            result.risks.add(horizon=label, time=time, risk=1 - row[column])
        for warning in found:
            result.warnings.add(kind=f"KIND_{warning.kind}", feature=warning.feature, message=warning.message)
    return response
