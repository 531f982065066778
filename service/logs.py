"""The log on standard error: lines of JSON for machines, of text for a terminal."""

import json
import logging
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Literal

from service.telemetry import request_id, trace_id

Format = Literal["auto", "json", "text"]

log = logging.getLogger(__name__)

_OWN: Final = frozenset({*vars(logging.makeLogRecord({})), "message", "asctime", "request_id", "trace_id", "taskName"})
"""What every record has; the rest are fields of the event."""

_LONGEST: Final = 100_000
"""Characters of a traceback that are told; the last calls are at its end."""


class _WithIds(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get()
        record.trace_id = trace_id.get()
        return True


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON (RFC 8259), in ASCII.

    Members: `time` (ISO 8601, UTC, milliseconds), `level`, `logger`, `message`, `request_id` and `trace_id` where there
    is one, the event's own, and `traceback`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        told: dict[str, Any] = {
            "time": _time(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        ids = {"request_id": getattr(record, "request_id", "-"), "trace_id": getattr(record, "trace_id", "")}
        told |= {name: value for name, value in ids.items() if value not in ("", "-")}
        # which never take the place of those
        told |= {name: value for name, value in _fields(record).items() if name not in told}
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)[-_LONGEST:]
        elif record.stack_info:
            told["traceback"] = record.stack_info[-_LONGEST:]
        return json.dumps(told, default=str)


class TextFormatter(logging.Formatter):
    """Writes a record as one line of text, its members as name=value behind it, and a traceback below."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's own name
        """Return the line without its traceback."""
        members = "".join(f" {name}={_plain(value)}" for name, value in _fields(record).items())
        # whatever was put in, a line stays a line
        return _one_line(super().formatMessage(record) + members)


def set_up_log(level: str, format_: Format = "auto") -> None:
    """Write the log to standard error, a line an event, with the request's id.

    Warnings of Python, and exceptions that nobody catches, become events of it too.

    Args:
        level: of the service's own lines. Libraries tell no more than warnings: in detail they would write file names,
            headers and pieces of pictures.
        format_: `json`, `text`, or `auto`: text on a terminal, else JSON.
    """
    handler = logging.StreamHandler()
    handler.addFilter(_WithIds())
    handler.setFormatter(JsonFormatter() if is_json(format_) else TextFormatter())
    logging.basicConfig(level="WARNING", handlers=[handler], force=True)
    logging.getLogger("service").setLevel(level)
    logging.getLogger().setLevel(max(logging.WARNING, logging.getLevelName(level)))
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def is_json(format_: Format) -> bool:
    """Whether lines are JSON."""
    return format_ == "json" or (format_ == "auto" and not sys.stderr.isatty())


def _time(seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds * 1000) % 1000:03d}Z"


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _OWN}


def _plain(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if text.isprintable() and " " not in text and text else json.dumps(text)


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    log.critical("uncaught", exc_info=(kind, error, traceback))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:
        error = args.exc_value or args.exc_type()
        log.critical("uncaught in a thread", exc_info=(args.exc_type, error, args.exc_traceback))


def _unraisable(args: "sys.UnraisableHookArgs") -> None:
    error = args.exc_value or args.exc_type()
    log.error("uncaught where nobody can catch it", exc_info=(args.exc_type, error, args.exc_traceback))
