"""`python -m medserve_client.cli`: the command `medserve`, where it is not on the path."""

import sys

from medserve_client.cli.command import main

sys.exit(main())
