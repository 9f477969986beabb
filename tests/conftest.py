"""Settings for every test: none of them may depend on how fast or how busy the machine is."""

import os
import signal

from hypothesis import HealthCheck, settings

# One thread for each sum: OpenMP's threads spin while they wait for each other, which costs most of the processor's
# time where there are more threads than processors. Read when NumPy, PyTorch or scikit-learn is first imported.
os.environ["OMP_NUM_THREADS"] = "1"

# A shell starts background jobs with SIGINT ignored, and the commands that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("any-machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")
