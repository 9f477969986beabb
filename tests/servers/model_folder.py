"""A model repository that a test changes while it is served, and calls that check which version responds."""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc
import numpy as np
import onnx

from medserve_proto.inference import grpc_service_pb2 as pb
from medserve_proto.inference.grpc_service_pb2_grpc import GRPCInferenceServiceStub
from servers.server_process import ServerProcess
from waiting import PATIENCE, wait_until

OK = grpc.StatusCode.OK
NOT_FOUND = grpc.StatusCode.NOT_FOUND


class ModelFolder:
    """Deploys and removes model files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def path(self, name: str, version: int | str) -> Path:
        return self.folder / name / str(version) / "model.onnx"

    def publish(self, name: str, version: int | str, model: onnx.ModelProto | bytes) -> Path:
        """Writes a model by renaming, or in place over the existing file."""
        path = self.path(name, version)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / ".unfinished"
        temporary.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        os.replace(temporary, path)  # noqa: PTH105 - Path.replace does the same, less visibly
        return path

    def remove(self, name: str, version: int | str) -> None:
        path = self.path(name, version)
        path.unlink()
        path.parent.rmdir()


def request(name: str, *rows: float, version: int | str = "") -> pb.ModelInferRequest:
    """Returns a request to a model with one input x of FP32[batch, 1]."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[len(rows), 1])
    return pb.ModelInferRequest(
        model_name=name,
        model_version=str(version),
        inputs=[tensor],
        raw_input_contents=[np.array(rows, np.float32).tobytes()],
    )


class Caller:
    """Calls models that compute y = x + number."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.stub = GRPCInferenceServiceStub(channel)

    def infer(self, name: str, x: float = 0.0, version: int | str = "") -> pb.ModelInferResponse:
        return self.stub.ModelInfer(request(name, x, version=version), timeout=PATIENCE)

    def number(self, name: str, version: int | str = "") -> float:
        """Returns the number that the served model adds."""
        return answer(self.infer(name, 0.0, version))

    def code(self, name: str, version: int | str = "") -> grpc.StatusCode:
        try:
            self.infer(name, 0.0, version)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return grpc.StatusCode.OK

    def index(self, *, ready: bool = False) -> dict[tuple[str, str], tuple[str, str]]:
        """Returns state and reason by name and version."""
        models = self.stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=ready)).models
        return {(model.name, model.version): (model.state, model.reason) for model in models}

    def wait_for_number(self, name: str, number: float) -> None:
        wait_until(lambda: self.code(name) is grpc.StatusCode.OK and self.number(name) == number, f"{name}: {number}")

    def wait_for_reason(self, name: str, version: int | str, reason: str) -> None:
        wait_until(lambda: reason in self.reason(name, version), f"{name}/{version}: {reason}")

    def wait_for_versions(self, name: str, versions: set[str]) -> None:
        wait_until(lambda: {key[1] for key in self.index(ready=True) if key[0] == name} == versions, f"{versions}")

    def state(self, name: str, version: int | str) -> str:
        return self.index().get((name, str(version)), ("", ""))[0]

    def reason(self, name: str, version: int | str) -> str:
        return self.index().get((name, str(version)), ("", ""))[1]


def answer(response: pb.ModelInferResponse) -> float:
    return float(np.frombuffer(response.raw_output_contents[0], np.float32)[0])


POLL = ("--model-control", "poll", "--poll-interval", "0.1")
EXPLICIT = ("--model-control", "explicit")


@dataclass(frozen=True)
class Live:
    """A repository and the server that serves it."""

    models: ModelFolder
    server: ServerProcess
    caller: Caller
    channel: grpc.Channel
    log: Path


class Load:
    """Calls repeatedly and checks each response against the versions that could have produced it."""

    def __init__(self, target: str, name: str, newest: Callable[[], int], published: Callable[[], int]) -> None:
        self.answers = 0
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._arguments = target, name, newest, published
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]

    def _run(self) -> None:
        target, name, newest, published = self._arguments
        with grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            caller = Caller(channel)
            x = 0
            while not self._stop.is_set():
                x = (x + 1) % 1000
                least = newest()
                try:
                    number = answer(caller.infer(name, x)) - x
                except grpc.RpcError as error:
                    self.wrong.append(str(error))
                    return
                self.answers += 1
                time.sleep(0.002)  # leaves CPU time to the server
                if not least <= number <= published():
                    self.wrong.append(f"{number} where {least} served and {published()} was published")

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
