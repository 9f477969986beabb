"""The service medserve.v1.PatientRisk."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from time import monotonic

from medserve_proto.v1 import patient_risk_pb2 as pb
from medserve_proto.v1.manifest_pb2 import PatientRiskTask
from medserve_proto.v1.patient_risk_pb2_grpc import PatientRiskServicer
from medserve_server.call_context import Context
from medserve_server.engine.model import Model
from medserve_server.engine.work import Arrays
from medserve_server.errors import ServingError, WrongModel
from medserve_server.explain.confidence import confidence_outputs, spread, unfamiliar
from medserve_server.explain.patients import ExplainedPatients
from medserve_server.inputs.patients import PatientReader, PatientWarning, Value
from medserve_server.services.api import Job, RowsApi, checked, priority
from medserve_server.status import to_status

Warnings = list[list[PatientWarning]]


class PatientRisk(RowsApi[pb.PredictRequest, pb.PredictResponse, pb.PredictStreamResponse], PatientRiskServicer):
    """Predicts survival curves and derives risks and risk groups from them."""

    name = "patient_risk"
    method = "/medserve.v1.PatientRisk/Predict"
    request_type = pb.PredictRequest

    def Predict(self, request: pb.PredictRequest, context: Context) -> Awaitable[pb.PredictResponse]:
        """Answers one request."""
        return self.unary(request, context)

    async def PredictStream(
        self, request_iterator: AsyncIterator[pb.PredictRequest], context: Context
    ) -> AsyncIterator[pb.PredictStreamResponse]:
        """Answers a stream of requests in order; a failed request is answered with an error in its position."""
        async for response in self.stream(request_iterator, context):
            yield response

    def in_stream(
        self, request: pb.PredictRequest, outcome: pb.PredictResponse | ServingError
    ) -> pb.PredictStreamResponse:
        """Wraps a response or an error as a stream response."""
        if isinstance(outcome, ServingError):
            return pb.PredictStreamResponse(error=to_status(outcome), request_id=request.request_id)
        return pb.PredictStreamResponse(response=outcome, request_id=request.request_id)

    def is_slow(self, request: pb.PredictRequest) -> bool:
        """Returns whether the request asks for reasons, which require additional rows."""
        return request.HasField("reasons")

    def estimate_load(self, request: pb.PredictRequest) -> tuple[int, int]:
        """Returns one row per patient, without the rows for reasons, which are not known yet, and the priority."""
        return len(request.patients), priority(request)

    def read(self, model: Model, request: pb.PredictRequest) -> Job[pb.PredictResponse]:
        """Converts the patients, and the rows for their reasons, to float32 [rows, features]."""
        began = monotonic()
        if model.manifest is None or not isinstance(model.reader, PatientReader):
            raise WrongModel(f"model {model.name} does not predict risk; ModelCatalog lists each model's task")
        self.check_rows("patients", len(request.patients))
        task = model.manifest.patient_risk
        names = ("survival", *confidence_outputs(task, "member_survival"))
        rows, warnings = model.reader.read([_values(patient) for patient in request.patients])
        answer = partial(_response, request, model, task, warnings)
        if not request.HasField("reasons"):
            return Job({"features": rows}, len(rows), names, answer)
        explained = ExplainedPatients(request.reasons, model.name, task, model.reader, rows, self._max_rows)
        return Job(
            {"features": explained.rows},
            len(explained.rows),
            names,
            partial(_explained_response, answer, model, explained, began),
            priority(request),
            slow=True,
        )


def _values(patient: pb.Patient) -> list[tuple[str, Value]]:
    values: list[tuple[str, Value]] = []
    for entry in patient.features:
        kind = entry.value.WhichOneof("value")
        values.append((entry.key, None if kind is None else getattr(entry.value, kind)))
    return values


def _explained_response(
    answer: Callable[[Arrays], pb.PredictResponse],
    model: Model,
    explained: ExplainedPatients,
    began: float,
    outputs: Arrays,
) -> pb.PredictResponse:
    response = answer(outputs)
    explained.add_to(response.results, outputs["survival"])
    model.metrics.explained(explained.kinds, monotonic() - began)
    return response


def _response(
    request: pb.PredictRequest, model: Model, task: PatientRiskTask, warnings: Warnings, outputs: Arrays
) -> pb.PredictResponse:
    """Builds the response from the first rows of the outputs; the remaining rows are for reasons."""
    survival = checked(model, outputs["survival"])[: len(warnings)]
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
    _add_confidence(response, task, [column for _, _, column in horizons], outputs)
    return response


def _add_confidence(response: pb.PredictResponse, task: PatientRiskTask, columns: list[int], outputs: Arrays) -> None:
    """Adds the uncertainty of an ensemble and the novelty of each patient, if the model has these outputs."""
    count = len(response.results)
    if task.members > 1:
        deviations = spread(outputs["member_survival"][:count, :, columns]).tolist()
        for result, row in zip(response.results, deviations, strict=True):
            for risk, deviation in zip(result.risks, row, strict=True):
                risk.uncertainty = deviation
    if task.HasField("novelty"):
        for result, score in zip(response.results, outputs["novelty"][:count].tolist(), strict=True):
            result.novelty = score
            if message := unfamiliar(score, task.novelty, "patients"):
                result.warnings.add(kind=pb.PatientWarning.KIND_UNFAMILIAR, message=message)
