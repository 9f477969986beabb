"""The paths of the Open Inference Protocol over HTTP and of the health probes, for the OpenAPI document."""

from typing import Any

from openapi_examples import EXAMPLES

Schema = dict[str, Any]

_PROTOCOL = "https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md"
_NUMBER_FROM_0 = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_DATATYPES = [
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "BF16", "FP32", "FP64", "BYTES"),
]

PROBES: Schema = {
    "/livez": {
        "get": {
            "tags": ["Probes"],
            "operationId": "livez",
            "description": "Liveness probe.",
            "responses": {"200": {"description": "The server is live.", "content": {"text/plain": {}}}},
        }
    },
    "/readyz": {
        "get": {
            "tags": ["Probes"],
            "operationId": "readyz",
            "description": "Readiness probe.",
            "responses": {
                "200": {"description": "The server is ready.", "content": {"text/plain": {}}},
                "503": {"description": "The server is not ready; the body states why.", "content": {"text/plain": {}}},
            },
        }
    },
}


def inference_schemas() -> Schema:
    """Returns the schemas of the Open Inference Protocol."""
    name = {"type": "string"}
    datatype = {"enum": _DATATYPES}
    shape = {"type": "array", "items": _NUMBER_FROM_0}
    data = {"type": "array", "description": "Elements in row-major order, flat or nested according to the shape."}
    tensor = {"name": name, "shape": shape, "datatype": datatype, "parameters": _PARAMETERS, "data": data}
    required = ["name", "shape", "datatype"]
    return {
        "InferenceInput": {"type": "object", "required": required, "properties": tensor},
        "InferenceOutput": {"type": "object", "required": required, "properties": tensor},
        "InferenceRequest": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": name,
                "parameters": _PARAMETERS,
                "inputs": {"type": "array", "items": {"$ref": "#/components/schemas/InferenceInput"}},
                "outputs": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {"name": name, "parameters": _PARAMETERS},
                    },
                },
            },
        },
        "InferenceResponse": {
            "type": "object",
            "required": ["model_name", "outputs"],
            "properties": {
                "model_name": name,
                "model_version": name,
                "id": name,
                "outputs": {"type": "array", "items": {"$ref": "#/components/schemas/InferenceOutput"}},
            },
        },
        "InferenceError": {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}},
    }


def inference_paths() -> Schema:
    """Returns the paths of the Open Inference Protocol and of Triton's extensions."""
    model, repository = "/v2/models/{name}", "/v2/repository/models/{name}"
    paths: Schema = {
        "/v2": {"get": _operation("serverMetadata", "Returns the server's metadata.")},
        "/v2/health/live": {"get": _readiness("serverLive", "Whether the server is live.")},
        "/v2/health/ready": {"get": _readiness("serverReady", "Whether the server is ready.")},
        "/v2/models/stats": {"get": _operation("allStatistics", "Returns request counts and durations of all models.")},
        "/v2/repository/index": {
            "post": _operation(
                "repositoryIndex",
                "Lists the model repository.",
                body={"type": "object", "properties": {"ready": {"type": "boolean"}}},
            )
        },
    }
    for verb in ("load", "unload"):
        paths[f"{repository}/{verb}"] = {
            "post": _operation(
                f"{verb}Model",
                f"{verb.title()}s a model. Requires `--model-control explicit` and the scope `admin`.",
                "name",
                body={"type": "object", "properties": {"parameters": _PARAMETERS}},
            )
        }
    for prefix, suffix, names in (
        (model, "", ("name",)),
        (f"{model}/versions/{{version}}", "_version", ("name", "version")),
    ):
        paths[prefix] = {"get": _operation(f"modelMetadata{suffix}", "Returns a model's metadata.", *names)}
        paths[f"{prefix}/ready"] = {"get": _readiness(f"modelReady{suffix}", "Whether a model is ready.", *names)}
        paths[f"{prefix}/config"] = {
            "get": _operation(f"modelConfig{suffix}", "Returns a model's configuration.", *names)
        }
        paths[f"{prefix}/stats"] = {
            "get": _operation(f"statistics{suffix}", "Returns request counts and durations of a model.", *names)
        }
        paths[f"{prefix}/infer"] = {"post": _infer(f"infer{suffix}", *names)}
    return paths


def _infer(operation_id: str, *names: str) -> Schema:
    operation = _operation(
        operation_id,
        "Runs a model. If binary data follows the JSON, Inference-Header-Content-Length is the length of the JSON.",
        *names,
        body={"$ref": "#/components/schemas/InferenceRequest"},
    )
    operation["requestBody"]["content"]["application/json"]["example"] = EXAMPLES["InferenceRequest"]
    answer = {"schema": {"$ref": "#/components/schemas/InferenceResponse"}}
    operation["responses"]["200"]["content"] = {"application/json": answer, "application/octet-stream": {}}
    return operation


def _readiness(operation_id: str, description: str, *names: str) -> Schema:
    operation = _operation(operation_id, description, *names)
    operation["responses"]["400"] = {"description": "Not ready.", "content": {"application/json": {}}}
    return operation


def _operation(operation_id: str, description: str, *names: str, body: Schema | None = None) -> Schema:
    operation: Schema = {
        "operationId": operation_id,
        "tags": ["Open Inference Protocol"],
        "description": description,
        "externalDocs": {"url": _PROTOCOL},
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in names
        ],
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {}}},
            "default": {
                "description": "An error.",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/InferenceError"}}},
            },
        },
    }
    if body is not None:
        operation["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return operation
