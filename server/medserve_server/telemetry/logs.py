"""Logging setup, the text and JSON formats, and the access log."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from types import TracebackType
from typing import Any
from uuid import uuid4

from medserve_server.telemetry.call_record import CallRecord

log = logging.getLogger(__name__)
access = logging.getLogger("medserve_server.access")
startup = logging.getLogger("medserve_server.startup")

Raised = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def set_up_logs(log_format: str, log_level: str) -> None:
    """Sends all logs of the process to standard error, including Python warnings and uncaught exceptions.

    Args:
        log_format: json or text.
        log_level: minimum level, in lower case.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=log_level.upper(), handlers=[handler], force=True)
    for logger in (access, startup):  # enabled by separate settings, independent of the level
        logger.setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    sys.unraisablehook = _log_unraisable


def _log_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("uncaught exception, the process exits; this is a bug", exc_info=(kind, error, trace))


def _log_unraisable(unraisable: Any) -> None:  # noqa: ANN401 - the type is not public
    error = unraisable.exc_value
    log.error("exception ignored: %s", unraisable.err_msg or "in a finalizer", exc_info=error)


class TextFormatter(logging.Formatter):
    """Formats log records as text. Exceptions are logged without their messages, which may quote requests."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - name defined by logging
        """Appends the fields of a structured record as key=value, with strings in quotes."""
        fields: dict[str, object] = getattr(record, "fields", {})
        return " ".join([super().formatMessage(record), *(f"{key}={json.dumps(fields[key])}" for key in fields)])

    def formatException(self, ei: Raised) -> str:  # noqa: N802 - name defined by logging
        """Formats the tracebacks and types of an exception and of its causes."""
        error = ei[1]
        parts = []
        while error is not None:
            parts.append("".join(traceback.format_tb(error.__traceback__)) + type(error).__name__)
            error = error.__cause__ or error.__context__
        return "\nraised after:\n".join(parts)


class JsonFormatter(TextFormatter):
    """Formats log records as JSON objects, one per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats time in UTC, level, logger and message, followed by the fields of a structured record."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_call(record: CallRecord) -> None:
    """Writes a finished call, or a finished request of a stream, to the access log."""
    fields = {
        "request_id": record.request_id or uuid4().hex,
        "client": record.client,
        "method": record.method,
        "model": record.model,
        "version": record.version,
        "sha256": record.sha256,
        "status": record.code.name,
        "rows": record.rows,
        "queue_seconds": _rounded(record.started - record.queued if record.started else 0.0),
        "compute_seconds": _rounded(record.finished - record.started),
        "total_seconds": _rounded(record.ended - record.began),
        "trace_id": record.traceparent[3:35],
    }
    access.info("request of a stream" if record.of_stream else "call", extra={"fields": fields})


def _rounded(seconds: float) -> float:
    return round(seconds, 6)
