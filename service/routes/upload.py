"""Reads a request's pictures and options, and runs its work in a thread until the client hangs up."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import anyio
import anyio.to_thread
from fastapi import Request
from pydantic import BaseModel
from starlette.datastructures import UploadFile

from service.codec import FORMATS, media_type
from service.problems import MalformedRequest
from service.scheduler import Job

Options = TypeVar("Options", bound=BaseModel)
Result = TypeVar("Result")

_MAX_FIELDS: Final = 32


@dataclass(frozen=True)
class Upload(Generic[Options]):
    """What came with a request.

    Attributes:
        image: the picture's file.
        reference: the reference's file, None where none came.
        options: the rest.
    """

    image: bytes
    reference: bytes | None
    options: Options


async def read_upload(request: Request, options: type[Options]) -> Upload[Options]:
    """Read a multipart form with the file `image` and perhaps `reference`, or a raw picture as body.

    Options are form fields or query parameters; a form field wins.

    Raises:
        MalformedRequest: there is no picture, or a part is of the wrong kind.
        ValidationError: an option can't be used.
    """
    fields: dict[str, Any] = dict(request.query_params)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("image/") or kind == "application/octet-stream":
        files = {"image": await request.body()}
    elif kind == "multipart/form-data":
        files = {}
        async with request.form(max_files=_MAX_FIELDS, max_fields=_MAX_FIELDS) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    if name not in ("image", "reference"):
                        raise MalformedRequest("The only files are image and reference.")
                    if name in files:
                        raise MalformedRequest(f"There is more than one file {name}.")
                    files[name] = await value.read()
                elif name in ("image", "reference"):
                    raise MalformedRequest(f"The part {name} is text: send a file (curl: -F {name}=@photo.jpg).")
                else:
                    fields[name] = value
    else:
        raise MalformedRequest("Send multipart/form-data with a file image, or a picture as body with its image/ type.")
    if not files.get("image"):
        raise MalformedRequest("The file image is missing or empty.")
    if files.get("reference") == b"":
        raise MalformedRequest("The file reference is empty.")
    return Upload(files["image"], files.get("reference"), options.model_validate(fields))


class Cancellation:
    """Carries a client's hanging up to the job that works for it, whichever comes first."""

    def __init__(self) -> None:
        self._job: Job | None = None
        self._cancelled = False

    def attach(self, job: Job) -> None:
        """Cancel this job when the client hangs up, or now where it has."""
        self._job = job
        if self._cancelled:
            job.cancel()

    def cancel(self) -> None:
        """The client hung up."""
        self._cancelled = True
        if self._job is not None:
            self._job.cancel()


async def run_in_thread(request: Request, work: Callable[[Cancellation], Result]) -> Result:
    """Run blocking work in a thread; a client that hangs up cancels it.

    Raises: whatever the work raises.
    """
    cancellation = Cancellation()
    limiter = request.app.state.workers
    error: Exception | None = None
    result: list[Result] = []

    async def watch_client() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        cancellation.cancel()

    # the group would wrap what the work raises, so it is carried out by hand
    async with anyio.create_task_group() as group:
        group.start_soon(watch_client)
        try:
            result.append(await anyio.to_thread.run_sync(work, cancellation, limiter=limiter))
        except Exception as raised:  # noqa: BLE001
            error = raised
        group.cancel_scope.cancel()
    if error is not None:
        raise error
    return result[0]


def form_schema(options: type[BaseModel], reference: str, *, reference_required: bool) -> dict[str, Any]:
    """Describe the request body for OpenAPI.

    Args:
        options: the model of the form's fields.
        reference: what the file `reference` is for.
        reference_required: whether there is nothing to do without it; a raw body, which holds one file, is then none.
    """
    file = {"type": "string", "format": "binary"}
    schema = options.model_json_schema()
    properties = {
        "image": {**file, "description": "A JPEG, PNG, WebP, TIFF, BMP, HEIC or AVIF picture."},
        "reference": {**file, "description": reference},
        **schema["properties"],
    }
    required = ["image", "reference"] if reference_required else ["image"]
    form = {"type": "object", "required": required, "properties": properties}
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    described: dict[str, Any] = {"requestBody": {"required": True, "content": content}}
    if not reference_required:
        content |= {media_type(format_): {"schema": file} for format_ in FORMATS}
        # a raw body leaves the options to the query
        described["parameters"] = [
            {"name": name, "in": "query", "required": False, "schema": entry}
            for name, entry in schema["properties"].items()
        ]
    return described
