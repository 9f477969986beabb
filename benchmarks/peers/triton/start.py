"""Creates a model repository for the tritonserver of the nvidia-pytriton wheel, and executes that server."""

import importlib.util
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

CONFIG = """
name: "chest-xray"
backend: "python"
max_batch_size: {max_batch}
input [{{ name: "image", data_type: TYPE_UINT8, dims: [28, 28, 1] }}]
output [{{ name: "probabilities", data_type: TYPE_FP32, dims: [2] }}]
instance_group [{{ count: {instances}, kind: KIND_CPU }}]
dynamic_batching {{ preferred_batch_size: [{preferred}], max_queue_delay_microseconds: {delay} }}
"""

spec = importlib.util.find_spec("pytriton")
if spec is None or spec.origin is None:
    raise SystemExit("nvidia-pytriton is not installed in this environment")
triton = Path(spec.origin).parent / "tritonserver"
work = Path(tempfile.mkdtemp(prefix="triton-"))

model = work / "models" / "chest-xray"
(model / "1").mkdir(parents=True)
shutil.copy(Path(__file__).with_name("model.py"), model / "1")
config = CONFIG.format(
    max_batch=os.environ["BENCH_MAX_BATCH"],
    instances=os.environ["BENCH_INSTANCES"],
    preferred=os.environ["BENCH_PREFERRED"],
    delay=os.environ["BENCH_DELAY_US"],
)
(model / "config.pbtxt").write_text(config.replace("preferred_batch_size: [], ", ""))

# The wheel has a stub for each Python version; the backend requires the matching one in its own folder.
shutil.copytree(triton / "backends", work / "backends")
stub = triton / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}" / "triton_python_backend_stub"
shutil.copy(stub, work / "backends" / "python")

# The stub imports packages from the first Python on PATH.
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
libraries = [str(triton.parents[1] / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")]
os.environ["LD_LIBRARY_PATH"] = ":".join([*libraries, os.environ.get("LD_LIBRARY_PATH", "")])
settings = {
    "model-repository": work / "models",
    "backend-directory": work / "backends",
    "grpc-address": "127.0.0.1",
    "grpc-port": os.environ["BENCH_PORT"],
    "allow-http": "false",
    "allow-metrics": "false",
}
if os.environ.get("BENCH_HTTP"):
    settings |= {
        "allow-grpc": "false",
        "allow-http": "true",
        "http-address": "127.0.0.1",
        "http-port": os.environ["BENCH_PORT"],
    }
binary = triton / "bin" / "tritonserver"
os.execv(binary, [str(binary), *(f"--{name}={value}" for name, value in settings.items())])  # noqa: S606
