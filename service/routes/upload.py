"""Reads a request's pictures and options."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

import anyio
import anyio.to_thread
from fastapi import Request
from pydantic import BaseModel

from service.archive import File, Limits, TooManyFiles, UnusableEntry, is_zip, read_zip
from service.codec import FORMATS, media_type
from service.edge.forms import BrokenForm, TooManyParts, read_body, read_form, text_of
from service.problems import MalformedRequest, UnsupportedMediaType
from service.schemas import IF_NONE_MATCH

Options = TypeVar("Options", bound=BaseModel)

# a broken form is told to the client, once
logging.getLogger("python_multipart").setLevel(logging.CRITICAL + 1)

_MAX_FIELDS: Final = 32
_ANY_TYPE: Final = "application/octet-stream"
_ANY_TYPES: Final = (_ANY_TYPE, "binary/octet-stream")
"""Amazon S3 gives the second one to what is stored without a type."""
_ZIP_TYPES: Final = ("application/zip", "application/x-zip-compressed")


@dataclass(frozen=True)
class Upload(Generic[Options]):
    """What came with a request.

    Attributes:
        files: the pictures, at least one.
        several: whether they came as several files or in a zip, and are answered in one.
        reference: the reference's file, None where none came.
        options: the rest.
    """

    files: Sequence[File]
    several: bool
    reference: bytes | None
    options: Options

    @property
    def image(self) -> bytes:
        """The first picture's file, the only one unless there are several."""
        return self.files[0].read()


async def read_upload(request: Request, options: type[Options], limits: Limits | None = None) -> Upload[Options]:
    """Read a multipart form with the file `image` and perhaps `reference`, or a raw picture or zip as body.

    Options are form fields or query parameters; a form field wins.

    Args:
        request: the request.
        options: their model.
        limits: of several pictures; None takes one alone.

    Raises:
        UnsupportedMediaType: the body is neither, or packed.
        MalformedRequest: there is no picture, or a part is of the wrong kind.
        MalformedZip, TooManyFiles, UnzippedTooLarge: as `read_zip`.
        ValidationError: an option can't be used.
    """
    fields: dict[str, Any] = dict(request.query_params)
    options.model_validate(fields)  # what can't be used is refused even where a form's field would win
    if request.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise UnsupportedMediaType("Send the body without Content-Encoding.", {"Accept-Encoding": "identity"})
    # a body without a type may be taken for what it looks like (RFC 9110, 8.3)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower() or _ANY_TYPE
    if kind.startswith("image/") or kind in (*_ANY_TYPES, *_ZIP_TYPES):
        images, reference = [("image", await read_body(request))], None
    elif kind == "multipart/form-data":
        images, reference = await _read_form(request, fields, 1 if limits is None else limits.files)
    else:
        accepted = "multipart/form-data" if limits is None else "multipart/form-data, image/*, application/zip"
        raise UnsupportedMediaType(
            "Send multipart/form-data with a file image, or a picture as body with its image/ type.",
            {"Accept-Post": accepted},
        )
    if not images or images == [(images[0][0], b"")]:
        raise MalformedRequest("The file image is missing or empty.")
    if reference == b"":
        raise MalformedRequest("The file reference is empty.")
    several = len(images) > 1
    if limits is not None and not several and is_zip(images[0][1]):
        # in a thread: looking through tens of megabytes would hold up everyone else
        files, several = await anyio.to_thread.run_sync(read_zip, images[0][1], limits), True
    elif kind in _ZIP_TYPES:
        raise MalformedRequest("The body is no zip.")
    else:
        files = [File(name, partial(_picture_alone if several else bytes, data)) for name, data in images]
    if several and reference is not None:
        raise MalformedRequest("A reference goes with one picture.")
    return Upload(files, several, reference, options.model_validate(fields))


def _picture_alone(data: bytes) -> bytes:
    if is_zip(data):
        raise UnusableEntry("It is a zip: send it alone, or its pictures.")
    return data


async def _read_form(
    request: Request, fields: dict[str, Any], most: int
) -> tuple[list[tuple[str, bytes]], bytes | None]:
    """Read a form: the pictures by name, and the reference; its other fields are added to `fields`."""
    images: list[tuple[str, bytes]] = []
    reference: bytes | None = None
    try:
        parts = await read_form(request, most + _MAX_FIELDS, _MAX_FIELDS)
    except TooManyParts as error:
        raise (TooManyFiles(most) if error.files else MalformedRequest("The form has too many fields.")) from error
    except BrokenForm as error:
        raise MalformedRequest("The body is no valid form.") from error
    for part in parts:
        if part.filename is None:
            if part.name in ("image", "reference"):
                raise MalformedRequest(f"The part {part.name} is text: send a file (curl: -F {part.name}=@photo.jpg).")
            fields[part.name] = text_of(part.data)
        elif part.name == "image":
            images.append((part.filename or "image", part.data))
        elif part.name != "reference":
            raise MalformedRequest("The only files are image and reference.")
        elif reference is not None:
            raise MalformedRequest("There is more than one file reference.")
        else:
            reference = part.data
    if len(images) > most:
        if most == 1:
            raise MalformedRequest("There is more than one file image.")
        raise TooManyFiles(most)
    return images, reference


BINARY: Final = {"type": "string", "format": "binary"}
"""A file, in OpenAPI."""


def form_schema(options: type[BaseModel], reference: str, *, reference_required: bool) -> dict[str, Any]:
    """Describe the request body, and the headers and options beside it, for OpenAPI.

    Args:
        options: the model of the form's fields.
        reference: what the file `reference` is for.
        reference_required: whether there is nothing to do without it; a raw body, which holds one file, is then none.
    """
    schema = options.model_json_schema()
    one = {**BINARY, "description": "A JPEG, PNG, WebP, TIFF, BMP, HEIC or AVIF picture."}
    several = {
        "type": "array",
        "items": BINARY,
        "minItems": 1,
        "description": "A picture, several, or one zip of them. Several, and a zip, are answered in a zip.",
    }
    options_by_name = {name: _without_null(entry) for name, entry in schema["properties"].items()}
    properties = {
        "image": one if reference_required else several,
        "reference": {**BINARY, "description": reference},
        **options_by_name,
    }
    required = ["image", "reference"] if reference_required else ["image"]
    form = {"type": "object", "required": required, "properties": properties}
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    described: dict[str, Any] = {"requestBody": {"required": True, "content": content}}
    if not reference_required:
        content |= {kind: {"schema": BINARY} for kind in ("image/*", *map(media_type, FORMATS))}
        content |= {_ANY_TYPE: {"schema": BINARY}, _ZIP_TYPES[0]: {"schema": BINARY}}
        # a raw body leaves the options to the query
        described["parameters"] = [
            {"name": name, "in": "query", "required": False, **_described_once(entry)}
            for name, entry in options_by_name.items()
        ]
        described["parameters"].append(IF_NONE_MATCH)
    return described


def _without_null(entry: dict[str, Any]) -> dict[str, Any]:
    """Take null out of an option: neither a form nor a query can say it, what is left out stands for it."""
    kinds: list[dict[str, Any]] = [kind for kind in entry.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return entry
    return kinds[0] | {name: value for name, value in entry.items() if name not in ("anyOf", "default")}


def _described_once(entry: dict[str, Any]) -> dict[str, Any]:
    """Lift a property's description from its schema to the parameter, where pages and clients look for it."""
    rest = {name: value for name, value in entry.items() if name != "description"}
    return {"schema": rest, "description": entry.get("description", "")}
