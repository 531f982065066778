"""OpenTelemetry spans: one a request, and one a stage of its pictures below it; for the extra `otel` alone.

Nothing of OpenTelemetry's SDK is imported unless traces are asked for. Spans are made when what they tell of is over,
from the figures that metrics, log and headers have, and sent by a thread of the SDK's: a collector that is slow or away
costs spans, never a request.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from service.telemetry import Stopwatch
from service.versions import package_version

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_FLUSH_WITHIN_S: Final = 5.0
"""Seconds that the last spans get on shutdown."""

_SAY_EVERY_S: Final = 60.0

_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")

_SERVER_ERROR: Final = 500

Attributes = Mapping[str, str | int | float]


class TracingUnavailable(Exception):
    """Traces are asked for and can't be sent; the message says what to do."""


def trace_of(headers: Mapping[str, str]) -> str:
    """Return the trace that a client's `traceparent` names (W3C Trace Context), empty where there is none."""
    found = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
    return found[1] if found else ""


class Tracing:
    """Exports spans by OTLP over HTTP, as the OTEL_ variables of the environment say."""

    def __init__(self) -> None:
        """Prepare to export; the collector is not asked for yet.

        Raises:
            TracingUnavailable: the extra is not installed, or a variable can't be.
        """
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise TracingUnavailable("install the extra otel: pip install 'pix2dslr[otel]'") from error
        ours = {SERVICE_VERSION: package_version()}
        if "OTEL_SERVICE_NAME" not in os.environ and "service.name=" not in os.getenv("OTEL_RESOURCE_ATTRIBUTES", ""):
            ours[SERVICE_NAME] = "pix2dslr"
        try:
            resource = Resource.create().merge(Resource(ours))
            self._provider: TracerProvider = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        except ValueError as error:
            raise TracingUnavailable(" ".join(str(error).split())) from error
        self._tracer = self._provider.get_tracer("pix2dslr", package_version())
        for name in ("opentelemetry.baggage", "opentelemetry.trace"):  # where they quote what clients send
            logging.getLogger(name).setLevel(logging.CRITICAL)
        seldom = _Seldom()
        for name in ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal"):
            logging.getLogger(name).addFilter(seldom)

    def begin(self, name: str, headers: Mapping[str, str], start: float) -> "RequestSpan":
        """Begin a request's span, below the one that its `traceparent` names.

        Args:
            name: until its end gives it a better one.
            headers: of the request, in lower case.
            start: when it began, as `time.monotonic()` says it.
        """
        from opentelemetry import propagate
        from opentelemetry.trace import SpanKind

        offset = time.time_ns() - time.monotonic_ns()
        at = _nanoseconds(start, offset)
        span = self._tracer.start_span(name, propagate.extract(headers), SpanKind.SERVER, start_time=at)
        return RequestSpan(self, span, offset)

    def stage(self, parent: "Span", name: str, start: int, end: int, attributes: Attributes) -> "Span":
        """Tell of a part of a request that is over, in nanoseconds since 1970; return its span."""
        from opentelemetry.trace import set_span_in_context

        span = self._tracer.start_span(name, set_span_in_context(parent), attributes=attributes, start_time=start)
        span.end(end)
        return span

    def close(self) -> None:
        """Send what is left, for some seconds, and stop."""
        # the SDK's own bounds are longer, and not all of them are kept
        closing = threading.Thread(target=self._provider.shutdown, name="tracing-close", daemon=True)
        closing.start()
        closing.join(_FLUSH_WITHIN_S)


class RequestSpan:
    """The span of a request under way."""

    def __init__(self, tracing: Tracing, span: "Span", offset: int) -> None:
        """Take over a span.

        Args:
            tracing: whose it is.
            span: the span.
            offset: nanoseconds since 1970 when `time.monotonic` was 0. Kept for the whole request: the wall clock may
                jump in the middle of it.
        """
        self._tracing = tracing
        self._span = span
        self._offset = offset
        context = span.get_span_context()
        self.trace_id = f"{context.trace_id:032x}" if context.is_valid else ""

    @property
    def recorded(self) -> bool:
        """Whether it is exported: the sampler may have decided otherwise."""
        return self._span.is_recording()

    def picture_done(self, watch: Stopwatch, name: str | None, problem: str | None) -> None:
        """Tell of a picture.

        Args:
            watch: its stages, each of which becomes a span.
            name: of a span around them, for one of several pictures; None hangs them below the request's.
            problem: what it was answered, where it failed.
        """
        if not self.recorded:
            return
        parent = self._span
        if name is not None:
            about = attributes_of(watch.facts)
            if problem is not None:
                about["error.type"] = problem
            end = watch.start + watch.seconds["total"]
            parent = self._tracing.stage(parent, name, self._at(watch.start), self._at(end), about)
        for stage, times in watch.stages.items():
            told = {"pix2dslr.seconds": times.seconds}
            self._tracing.stage(parent, stage, self._at(times.start), self._at(times.end), told)

    def end(self, method: str, route: str, status: int, end: float, attributes: Attributes) -> None:
        """End it.

        Args:
            method: of HTTP.
            route: its pattern.
            status: what was answered.
            end: when, as `time.monotonic()` says it.
            attributes: what else is told of it.
        """
        from opentelemetry.trace import Status, StatusCode

        self._span.update_name(f"{method} {route}")
        self._span.set_attributes(
            {
                "http.request.method": method,
                "http.route": route,
                "http.response.status_code": status,
                **attributes,
            }
        )
        if (
            status >= _SERVER_ERROR
        ):  # a client's own error is no failure of the server's, by OpenTelemetry's conventions
            self._span.set_status(Status(StatusCode.ERROR, str(attributes.get("error.type", ""))))
        self._span.end(self._at(end))

    def _at(self, seconds: float) -> int:
        return _nanoseconds(seconds, self._offset)


def _nanoseconds(seconds: float, offset: int) -> int:
    return int(seconds * 1e9) + offset


def attributes_of(facts: Mapping[str, str | int]) -> dict[str, str | int | float]:
    """Return what is known of a picture, or of a request's pictures, as attributes of a span."""
    told: dict[str, str | int | float] = {
        f"pix2dslr.{name}": value for name, value in facts.items() if name != "pixels"
    }
    if "pixels" in facts:
        told["pix2dslr.megapixels"] = int(facts["pixels"]) / 1e6
    return told


class _Seldom(logging.Filter):
    """Lets the exporter complain once a minute: it tries again and again while the collector is away."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._said.get(str(record.msg), -_SAY_EVERY_S) < _SAY_EVERY_S:
            return False
        self._said[str(record.msg)] = now
        return True
