"""An installation without the extra `otel`."""

import sys


def apply() -> None:
    sys.modules["opentelemetry"] = None  # type: ignore[assignment]  # what makes an import fail
