"""medserve.v1.PatientRisk."""

from collections.abc import AsyncIterator
from functools import partial

from medserve_proto.v1 import patient_risk_pb2 as pb
from medserve_proto.v1.manifest_pb2 import PatientRiskTask
from medserve_proto.v1.patient_risk_pb2_grpc import PatientRiskServicer
from medserve_server.batcher import Arrays
from medserve_server.errors import ServingError, WrongModel
from medserve_server.interceptors import Context, to_status
from medserve_server.model import Model
from medserve_server.patients import PatientReader, PatientWarning, Value
from medserve_server.services.api import Job, ModelApi, checked

Warnings = list[list[PatientWarning]]


class PatientRisk(ModelApi[pb.PredictRequest, pb.PredictResponse, pb.PredictStreamResponse], PatientRiskServicer):
    """Reads patients, asks the model, and reads risks and groups off the survival curve."""

    name = "patient_risk"
    method = "/medserve.v1.PatientRisk/Predict"
    request_type = pb.PredictRequest

    async def Predict(self, request: pb.PredictRequest, context: Context) -> pb.PredictResponse:
        """Answers one request."""
        return await self.unary(request, context)

    async def PredictStream(
        self, request_iterator: AsyncIterator[pb.PredictRequest], context: Context
    ) -> AsyncIterator[pb.PredictStreamResponse]:
        """Answers many requests in their order, errors in their place."""
        async for response in self.stream(request_iterator, context):
            yield response

    def in_stream(
        self, request: pb.PredictRequest, outcome: pb.PredictResponse | ServingError
    ) -> pb.PredictStreamResponse:
        """Wraps a response or an error for the stream."""
        if isinstance(outcome, ServingError):
            return pb.PredictStreamResponse(error=to_status(outcome), request_id=request.request_id)
        return pb.PredictStreamResponse(response=outcome, request_id=request.request_id)

    def read(self, model: Model, request: pb.PredictRequest) -> Job[pb.PredictResponse]:
        """Brings the patients to float32 [patients, features]."""
        if model.manifest is None or not isinstance(model.reader, PatientReader):
            raise WrongModel(f"model {model.name} predicts no risk; ModelCatalog lists what each one does")
        self.check_rows("patients", len(request.patients))
        rows, warnings = model.reader.read([_values(patient) for patient in request.patients])
        answer = partial(_response, request, model, model.manifest.patient_risk, warnings)
        return Job({"features": rows}, len(rows), ("survival",), answer)


def _values(patient: pb.Patient) -> list[tuple[str, Value]]:
    values: list[tuple[str, Value]] = []
    for entry in patient.features:
        kind = entry.value.WhichOneof("value")
        values.append((entry.key, None if kind is None else getattr(entry.value, kind)))
    return values


def _response(
    request: pb.PredictRequest, model: Model, task: PatientRiskTask, warnings: Warnings, outputs: Arrays
) -> pb.PredictResponse:
    survival = checked(model, outputs["survival"])
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
