"""The path /v1/status of the OpenAPI document, which has no gRPC method."""

from typing import Any

Schema = dict[str, Any]

_COUNT = {"type": "integer", "minimum": 0}
_NUMBER = {"type": "number", "minimum": 0}
_TEXT = {"type": "string"}


def status_paths(errors: Schema) -> Schema:
    """Returns the path with its operation.

    Args:
        errors: The responses for errors by HTTP status.
    """
    schema = {"$ref": "#/components/schemas/Status"}
    operation = {
        "operationId": "status",
        "tags": ["Status"],
        "description": "Returns what the answering process serves, and its counters. With several workers, any of them "
        "may answer. Requires the scope `metadata`.",
        "parameters": [],
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}} | errors,
    }
    return {"/v1/status": {"get": operation}}


def status_schemas() -> Schema:
    """Returns the schemas of the response."""
    model = {
        "name": _TEXT,
        "version": _TEXT,
        "task": {"$ref": "#/components/schemas/Task"},
        "title": _TEXT,
        "ready": {"type": "boolean", "description": "False while a run of the model hangs."},
        "provider": {**_TEXT, "description": "The ONNX Runtime execution provider."},
        "threads": {**_TEXT, "description": "Threads per run."},
        "precision": _TEXT,
        "loadSeconds": {**_NUMBER, "description": "Time to load and warm up the model."},
        "pending": {**_NUMBER, "description": "Requests in the queue."},
        "inflight": {**_NUMBER, "description": "Requests in progress."},
        "succeeded": {**_COUNT, "description": "Requests that succeeded since the model was loaded."},
        "failed": {**_COUNT, "description": "Requests that failed since the model was loaded."},
        "rows": {**_NUMBER, "description": "Images, patients or rows computed."},
        "runs": {**_NUMBER, "description": "Model runs; each computes one batch."},
        "durations": {
            "type": "array",
            "items": _COUNT,
            "description": "Number of requests by duration, in the buckets of `durationBounds`.",
        },
    }
    process = {
        "process": {**_COUNT, "description": "Process ID of the worker that answers."},
        "uptimeSeconds": _NUMBER,
        "version": _TEXT,
        "onnxruntime": _TEXT,
        "python": _TEXT,
        "transport": _TEXT,
        "grpcPort": {**_COUNT, "description": "Port of gRPC; with the transport grpcio, REST has another one."},
        "workers": _COUNT,
        "durationBounds": {
            "type": "array",
            "items": _NUMBER,
            "description": "Upper bounds of the buckets of `durations` in seconds; a last bucket has none.",
        },
        "models": {"type": "array", "items": {"$ref": "#/components/schemas/ModelStatus"}},
        "refused": {
            "type": "object",
            "additionalProperties": _COUNT,
            "description": "Requests refused by each limit since the start; limits without any are omitted.",
        },
    }
    return {
        "Status": {"type": "object", "required": list(process), "properties": process},
        "ModelStatus": {"type": "object", "required": ["name", "version"], "properties": model},
    }
