"""An OTLP/HTTP collector on loopback: takes real exports and decodes their protobuf."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

_ERROR = 2  # Status.STATUS_CODE_ERROR


@dataclass(frozen=True)
class Span:
    """One span as it came, times in seconds since 1970."""

    name: str
    trace: str
    id: str
    parent: str
    start: float
    end: float
    failed: bool
    attributes: dict[str, Any]
    resource: dict[str, Any]
    start_ns: int
    end_ns: int


@dataclass
class Collector:
    """Where spans go.

    Attributes:
        url: what OTEL_EXPORTER_OTLP_ENDPOINT should be.
        spans: those that came.
        holds: while it is set, requests are taken and not answered.
    """

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    holds: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)

    def take(self, body: bytes) -> None:
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            about = values(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [span_of(span, about) for span in scope.spans]

    def of(self, trace: str) -> list[Span]:
        return [span for span in list(self.spans) if span.trace == trace]


def values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def span_of(span: Any, resource: dict[str, Any]) -> Span:
    return Span(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano / 1e9,
        span.end_time_unix_nano / 1e9,
        span.status.code == _ERROR,
        values(span.attributes),
        resource,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
    )


@contextmanager
def collector() -> Iterator[Collector]:
    """Run one."""
    made = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.asked.set()
            if made.holds.is_set():
                made.let_go.wait(60)
            elif self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf":
                made.take(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    made.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield made
    finally:
        made.let_go.set()
        server.shutdown()
        thread.join()
        server.server_close()
