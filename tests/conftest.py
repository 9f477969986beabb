"""Settings for every test: none may depend on the speed or load of the machine."""

import os
import signal

from hypothesis import HealthCheck, settings

# One OpenMP thread: waiting threads spin, which takes most of the CPU time if there are more threads than processors.
# Read when NumPy, PyTorch or scikit-learn is first imported.
os.environ["OMP_NUM_THREADS"] = "1"

# Disables ONNX Runtime's telemetry in the test processes; NetworkWatch unsets it to test the commands.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# A shell starts background jobs with SIGINT ignored, and the commands that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")
