"""What belongs to a whole process: its heaps, its log and its warnings."""

import warnings

from medserve_server.config import Settings
from medserve_server.process.heap import share_heaps
from medserve_server.telemetry.logs import set_up_logs


def set_up_process(settings: Settings) -> None:
    """Sets these up, once."""
    share_heaps()
    set_up_logs(settings.log_format, settings.log_level)
    # They warn of sloppy metadata in images that they read all the same: anyone could fill the log with that, and
    # pydicom quotes it.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.|pydicom\.")
