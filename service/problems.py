"""Every error that a client can see: one table, answered as RFC 9457 problem details."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from service import telemetry
from service.alignment import BarelyOverlaps, NotAligned
from service.archive import MalformedZip, TooManyFiles, UnusableEntry, UnzippedTooLarge
from service.caller import Cancelled
from service.catalogue import UnknownCamera
from service.codec import (
    DecodingTooCostly,
    MalformedPicture,
    NotWritable,
    PictureTooLarge,
    SideTooLong,
    TooManyFrames,
    TooManyScans,
    UnsupportedFormat,
    UnsupportedSamples,
)
from service.decoding.pool import NoDecodeWorker
from service.edge.errors import (
    NoRoom,
    OtherOrigin,
    RateLimited,
    TooManyAtOnce,
    TooManyConnections,
    TooSlow,
    Unauthorized,
    UnknownHost,
)
from service.quality import SizesDiffer, TooSmall
from service.scheduler import Closed, DeadlineExceeded, DeviceFailed, InferenceFailed, QueueFull

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

PROBLEM: Final = "pix2dslr.problem"
"""Key of an ASGI message that answers a problem: the last part of its type."""


class MalformedRequest(Exception):
    """The request can't be read; the message says why in words for the client."""


class UnsupportedMediaType(Exception):
    """The request's body is of a kind that is not taken; the message says what is, in words for the client.

    Attributes:
        headers: those that tell a machine the same.
    """

    def __init__(self, message: str, headers: Mapping[str, str]) -> None:
        super().__init__(message)
        self.headers = headers


class BodyTooLarge(Exception):
    """The request's body has too many bytes.

    Attributes:
        limit: how many are allowed.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(f"more than {limit} bytes")
        self.limit = limit


class NotReady(Exception):
    """The service can't take the request now; the message says why in words for the client."""


@dataclass(frozen=True)
class Problem:
    """One row of the table.

    Attributes:
        type: stable name, the last part of the problem's `type`.
        status: HTTP status.
        title: what went wrong, the same for every occurrence.
    """

    type: str
    status: int
    title: str


@dataclass(frozen=True)
class _Row:
    problem: Problem
    detail: Callable[[Any], str]
    retry_after: Callable[[Any], int] | None = None
    headers: Callable[[Any], Mapping[str, str]] = lambda _: {}


def _counted(number: int) -> str:
    return f"{number:,}".replace(",", " ")


_FORMATS: Final = "Send a JPEG, PNG, WebP, TIFF, BMP, HEIC or AVIF file."
_DEPTHS: Final = (
    "send whole numbers of 8 bits in a JPEG, WebP or BMP, of 1, 2, 4, 8 or 16 in a PNG or TIFF, of 8 to 12 in a HEIC "
    "or AVIF"
)
_NOT_ALIGNED = Problem("not-aligned", 422, "The reference can't be aligned with the picture")
_GIVEN_UP = Problem("cancelled", 499, "The client gave up")
_TABLE: Mapping[type[Exception], _Row] = {
    MalformedRequest: _Row(Problem("malformed-request", 400, "The request can't be read"), str),
    MalformedPicture: _Row(
        Problem("malformed-picture", 400, "The picture can't be decoded"),
        lambda e: f"Send the whole, undamaged file: {e}.",
    ),
    Unauthorized: _Row(
        Problem("unauthorized", 401, "An API key is needed"),
        lambda _: "Send one that is valid as Authorization: Bearer KEY, or as X-API-Key.",
        headers=lambda _: {"WWW-Authenticate": 'Bearer realm="pix2dslr"'},
    ),
    OtherOrigin: _Row(
        Problem("other-origin", 403, "Pages of other origins may not use the service"),
        lambda _: "Send it from a page of the service's own, or ask the operator to allow the page's origin.",
    ),
    TooSlow: _Row(
        Problem("too-slow", 408, "The request came too slowly"),
        lambda e: f"Too little of it came within {e.seconds:g} s: try again on a better line, or with a smaller file.",
    ),
    UnknownHost: _Row(
        Problem("unknown-host", 421, "The service does not answer for this host"),
        lambda _: "Ask for it by the name that it is known by.",
    ),
    BodyTooLarge: _Row(
        Problem("body-too-large", 413, "The request has too many bytes"),
        lambda e: f"Send at most {_counted(e.limit)} bytes.",
    ),
    MalformedZip: _Row(Problem("malformed-zip", 400, "The zip can't be read"), str),
    TooManyFiles: _Row(
        Problem("too-many-files", 413, "There are too many files"),
        lambda e: f"Send at most {_counted(e.limit)} at once.",
    ),
    UnzippedTooLarge: _Row(
        Problem("unzipped-too-large", 413, "The zip holds too many bytes"),
        lambda e: f"Its files claim {_counted(e.claimed)} bytes; send at most {_counted(e.limit)}, unzipped.",
    ),
    UnusableEntry: _Row(Problem("unusable-entry", 422, "A file of several can't be used"), str),
    UnsupportedMediaType: _Row(
        Problem("unsupported-media-type", 415, "The request's body is of a kind that is not taken"),
        str,
        headers=lambda e: e.headers,
    ),
    UnsupportedFormat: _Row(
        Problem("unsupported-format", 415, "The picture's format is not supported"),
        lambda e: f"{e.reason[:1].upper()}{e.reason[1:]}." if e.reason else _FORMATS,
    ),
    PictureTooLarge: _Row(
        Problem("picture-too-large", 422, "The picture has too many pixels"),
        lambda e: f"It has {_counted(e.pixels)} pixels; send at most {_counted(e.limit)}.",
    ),
    TooManyFrames: _Row(
        Problem("too-many-frames", 422, "The file has too many frames or pages"),
        lambda e: f"Send a file of at most {_counted(e.limit)}; only the first is enhanced.",
    ),
    TooManyScans: _Row(
        Problem("too-many-scans", 422, "The JPEG has too many scans"),
        lambda e: f"Send one of at most {_counted(e.limit)}; photo programs write about ten.",
    ),
    UnsupportedSamples: _Row(
        Problem("unsupported-samples", 422, "The picture's samples are of a kind that is not taken"),
        lambda e: f"They are {e.kind}: {e.instead or _DEPTHS}.",
    ),
    DecodingTooCostly: _Row(
        Problem("decoding-too-costly", 422, "The picture takes too much to decode"),
        lambda e: (
            (
                f"Decoding it took more than {e.limit:.3g} s"
                if e.what == "time"
                else "Decoding it took more memory than a picture of its size needs"
            )
            + ": save it anew, in another format."
        ),
    ),
    SideTooLong: _Row(
        Problem("side-too-long", 422, "The answer's format can't hold the picture"),
        lambda e: (
            f"{e.format.upper()} holds sides of up to {_counted(e.limit)} pixels, not {_counted(e.side)}: "
            "ask for format=png."
        ),
    ),
    NotWritable: _Row(
        Problem("not-writable", 422, "The answer's format can't be written here"),
        lambda e: f"This installation reads {e.format.upper()} and can't write it: ask for another format.",
    ),
    UnknownCamera: _Row(
        Problem("unknown-camera", 422, "There is no generator for the camera"),
        lambda e: f"Ask for one of: {', '.join(e.known)}.",
    ),
    SizesDiffer: _Row(
        Problem("sizes-differ", 422, "The picture and its reference differ in size"),
        lambda e: (
            f"The picture is {e.picture[1]}x{e.picture[0]} pixels and the reference "
            f"{e.reference[1]}x{e.reference[0]}: send two of one size."
        ),
    ),
    TooSmall: _Row(
        Problem("too-small", 422, "The picture is too small to be measured"),
        lambda e: f"Both sides need at least {e.limit} pixels.",
    ),
    BarelyOverlaps: _Row(
        _NOT_ALIGNED,
        lambda _: (
            "They show nearly nothing in common, or one is turned or mirrored: send two upright pictures of the "
            "same part of the scene."
        ),
    ),
    NotAligned: _Row(
        _NOT_ALIGNED,
        lambda e: (
            f"Only {e.inliers} points match, and at least {e.needed} are needed: send two photos of the same scene; "
            "small or flat pictures have too few points."
        ),
    ),
    RateLimited: _Row(
        Problem("rate-limited", 429, "You sent too many pictures"),
        lambda e: f"You may send {_counted(e.limit)} {e.unit} a minute: try again in {_counted(e.retry_after)} s.",
        lambda e: int(e.retry_after),
    ),
    TooManyAtOnce: _Row(
        Problem("too-many-at-once", 429, "You have too many requests under way"),
        lambda e: f"You may have {_counted(e.limit)} at once: send the next when one of them is answered.",
        lambda _: 1,
    ),
    QueueFull: _Row(
        Problem("queue-full", 429, "Too many tiles wait already"),
        lambda e: f"Try again in {e.retry_after} s; the picture has {_counted(e.tiles)} tiles.",
        lambda e: int(e.retry_after),
    ),
    InferenceFailed: _Row(
        Problem("inference-failed", 500, "The device failed on the picture"),
        lambda _: "Try again; if it happens again, tell the operator the request's id.",
    ),
    NoRoom: _Row(
        Problem("no-room", 503, "There is no room for the request's bytes now"),
        lambda _: "Others are sending too much: try again, or send a smaller file.",
        lambda _: 2,
    ),
    TooManyConnections: _Row(
        Problem("too-many-connections", 503, "Too many connections are open"),
        lambda _: "Try again soon.",
        lambda _: 1,
    ),
    NotReady: _Row(Problem("not-ready", 503, "The service takes no pictures now"), str, lambda _: 1),
    NoDecodeWorker: _Row(
        Problem("not-ready", 503, "The service takes no pictures now"),
        lambda _: "No process is free, or works, to decode the picture; try again soon.",
        lambda _: 5,
    ),
    Closed: _Row(
        Problem("not-ready", 503, "The service takes no pictures now"),
        lambda _: "It is shutting down; try again.",
        lambda _: 1,
    ),
    DeviceFailed: _Row(
        Problem("not-ready", 503, "The service takes no pictures now"),
        lambda _: "The device that enhances them has failed; try again when the service was restarted.",
        lambda _: 10,
    ),
    DeadlineExceeded: _Row(
        Problem("deadline-exceeded", 504, "The picture was not done in time"),
        lambda e: f"It was given {e.seconds:g} s: send a smaller picture, or try again when less waits.",
    ),
    # nobody reads these: the client hung up
    Cancelled: _Row(_GIVEN_UP, lambda _: "The request was given up."),
    ClientDisconnect: _Row(_GIVEN_UP, lambda _: "The request was given up."),  # in the middle of its body
}

EXPECTED: Final[tuple[type[Exception], ...]] = tuple(_TABLE)
"""Every exception that the table explains."""


def without_frames(error: Exception) -> Exception:
    """Return an error, without what leads to the frames that it passed where it is one that is expected.

    They hold the picture and its file, and are tied into a circle with the error, by way of the one that it was raised
    for, of a future, or of libraries' frames: all of it would stay until the garbage collector comes.
    """
    if isinstance(error, EXPECTED):
        error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


_MOST_TOLD: Final = 8
"""Parameters that a problem names."""
_LONGEST_NAME: Final = 64
_INVALID = Problem("invalid-parameter", 422, "A parameter can't be used")
_INTERNAL = Problem("internal-error", 500, "The service failed")
_INTERNAL_DETAIL = "It is logged under the request's id; tell the operator."
_BY_STATUS = {
    400: (Problem("malformed-request", 400, "The request can't be read"), "The body is no valid form."),
    404: (Problem("not-found", 404, "There is nothing here"), "GET /docs lists what there is."),
    405: (Problem("method-not-allowed", 405, "The method does not fit"), "The Allow header names those that do."),
}


def all_problems() -> list[Problem]:
    """Return every problem that a client can meet, by status."""
    rows = {row.problem for row in _TABLE.values() if row.problem.status != 499}
    rows |= {_INVALID, _INTERNAL} | {problem for problem, _ in _BY_STATUS.values()}
    return sorted(rows, key=lambda problem: (problem.status, problem.type))


_EXAMPLES: Final[tuple[Exception, ...]] = (
    MalformedRequest("The file image is missing or empty."),
    MalformedPicture("the file is damaged or ends early"),
    MalformedZip("Send the whole, undamaged zip."),
    Unauthorized(),
    OtherOrigin(),
    TooSlow(30),
    UnknownHost(),
    RateLimited(60, 4),
    TooManyAtOnce(8),
    NoRoom(),
    TooManyConnections(),
    BodyTooLarge(64 << 20),
    TooManyFiles(1000),
    UnzippedTooLarge(2 << 30, 1 << 30),
    UnsupportedMediaType("Send a picture as body with its image/ type.", {}),
    UnsupportedFormat(),
    PictureTooLarge(230_400_000, 100_000_000),
    TooManyFrames(1000),
    TooManyScans(100),
    UnsupportedSamples("of 12 bits"),
    DecodingTooCostly("time", 30.0),
    SideTooLong(20_000, 16_383, "webp"),
    NotWritable("heic"),
    UnknownCamera("kodak", ("blackberry", "iphone", "sony")),
    SizesDiffer((3024, 4032), (1512, 2016)),
    TooSmall(11),
    NotAligned(7, 20),
    UnusableEntry("It is encrypted: zip it without a password."),
    RequestValidationError([{"loc": ("strength",), "msg": "Input should be less than or equal to 1"}]),
    QueueFull(1189, 16_384, 12),
    InferenceFailed(),
    NotReady("It is loading; try again soon."),
    DeadlineExceeded(300),
)


def examples() -> dict[str, dict[str, Any]]:
    """Return a problem of each type as a client would read it, by type."""
    identity = {"request_id": "0b9d1cf0b24a4e0fa2d0b5f4f4e6a3a1"}
    known = [_describe(error) for error in _EXAMPLES]
    known += [_Described(problem, detail, {}) for problem, detail in _BY_STATUS.values()]
    known += [_Described(_INTERNAL, _INTERNAL_DETAIL, {})]
    # the first of a type stands: the table has words of its own for two of those that a status gives too
    return {each.problem.type: each.body | identity for each in reversed(known)}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI `responses` of the problems with these statuses, each with an example."""
    answers: dict[int | str, dict[str, Any]] = {}
    told = examples()
    for status in statuses:
        found = [problem for problem in all_problems() if problem.status == status]
        answers[status] = {
            "description": "; ".join(f"`{problem.type}`: {problem.title}" for problem in found),
            "content": {
                MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/ProblemDetails"},
                    "examples": {
                        problem.type: {"summary": problem.title, "value": told[problem.type]} for problem in found
                    },
                }
            },
        }
        if any(row.retry_after for row in _TABLE.values() if row.problem in found):
            answers[status]["headers"] = {
                "Retry-After": {"description": "Seconds until it is worth trying again.", "schema": {"type": "integer"}}
            }
    return answers


def words_for(error: Exception) -> str:
    """Say in one line what an exception of `EXPECTED` means, for people at a shell."""
    row = _TABLE[type(error)]
    return f"{row.problem.title}. {row.detail(error)}"


@dataclass(frozen=True)
class _Described:
    problem: Problem
    detail: str
    headers: Mapping[str, str]

    @property
    def body(self) -> dict[str, Any]:
        return {
            "type": f"urn:pix2dslr:problem:{self.problem.type}",
            "title": self.problem.title,
            "status": self.problem.status,
            "detail": self.detail,
            "request_id": telemetry.request_id.get(),
        }


class ProblemResponse(JSONResponse):
    """A problem as an answer. Its first message names it to whoever counts, under the key `PROBLEM`.

    Attributes:
        problem: which it is.
    """

    media_type = MEDIA_TYPE

    def __init__(self, problem: Problem, body: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        super().__init__(body, problem.status, headers)
        self.problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; an ASGI application."""

        async def send_named(message: Message) -> None:
            await send({**message, PROBLEM: self.problem.type})

        await super().__call__(scope, receive, send_named)


def response_to(error: Exception) -> ProblemResponse:
    """Turn an exception into its problem; one that the table does not know is an internal error and is logged."""
    described = _describe(error)
    return ProblemResponse(described.problem, described.body, {"Cache-Control": "no-store", **described.headers})


def name_of(error: Exception) -> str:
    """Return the last part of an exception's problem type."""
    if (row := _TABLE.get(type(error))) is not None:
        return row.problem.type
    if isinstance(error, RequestValidationError | ValidationError):
        return _INVALID.type
    if isinstance(error, HTTPException) and error.status_code in _BY_STATUS:
        return _BY_STATUS[error.status_code][0].type
    return _INTERNAL.type


def details(error: Exception) -> dict[str, Any]:
    """Return the problem's members, as `response_to` answers them, for an answer that tells of several."""
    return _describe(error).body


def _describe(error: Exception) -> _Described:
    row = _TABLE.get(type(error))
    if row is not None:
        headers = {} if row.retry_after is None else {"Retry-After": str(row.retry_after(error))}
        return _Described(row.problem, row.detail(error), {**headers, **row.headers(error)})
    if isinstance(error, RequestValidationError | ValidationError):
        entries = error.errors()
        told = [_explain(entry) for entry in entries[:_MOST_TOLD]]
        if len(entries) > _MOST_TOLD:
            told.append(f"and {_counted(len(entries) - _MOST_TOLD)} more")
        return _Described(_INVALID, "; ".join(told), {})
    if isinstance(error, HTTPException) and error.status_code in _BY_STATUS:
        problem, detail = _BY_STATUS[error.status_code]
        return _Described(problem, detail, dict(error.headers or {}))
    log.error("unexpected", exc_info=error)
    return _Described(_INTERNAL, _INTERNAL_DETAIL, {})


def _explain(entry: Mapping[str, Any]) -> str:
    place = [str(part) for part in entry["loc"] if part not in ("body", "query", "path", "header")]
    name = ".".join(place) or "request"
    return f"{name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + '…'}: {entry['msg']}"


def install(app: FastAPI) -> None:
    """Answer every exception of an app's routes with its problem."""

    async def handle(request: Request, error: Exception) -> Response:  # noqa: ARG001
        return response_to(error)

    for kind in (*_TABLE, RequestValidationError, ValidationError, HTTPException):
        app.add_exception_handler(kind, handle)
