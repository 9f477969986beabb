"""Runs the `medserve` command as `python -m medserve_client.cli`, for when it is not on the PATH."""

import sys

from medserve_client.cli.command import main

sys.exit(main())
