"""Patches the server in every interpreter: the supervisor's, a worker's and Envoy's.

Python imports this module at startup if it is on the path; `server_process` puts it there.
"""

import importlib
import json
import os
import traceback

try:
    name, *arguments = json.loads(os.environ["SERVER_PATCH"])
    importlib.import_module(name).apply(*arguments)
except BaseException:  # noqa: BLE001 - Python itself would go on with a server that is as always
    traceback.print_exc()
    os._exit(70)
