"""The service's operations, one method each."""

import io
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, TypeVar

import httpx
from pydantic import BaseModel

from pix2dslr_client.models import (
    BatchErrors,
    Cameras,
    EnhanceOptions,
    EvaluateOptions,
    Evaluation,
    Liveness,
    ProblemDetails,
    Readiness,
)

Model = TypeVar("Model", bound=BaseModel)


class Problem(Exception):
    """The service answered with an error.

    Attributes:
        details: what it says.
        retry_after: seconds after which it is worth trying again, None where it is not said.
    """

    def __init__(self, details: ProblemDetails, retry_after: int | None) -> None:
        super().__init__(f"{details.title}. {details.detail}")
        self.details = details
        self.retry_after = retry_after


@dataclass(frozen=True)
class Enhanced:
    """An enhanced picture.

    Attributes:
        data: the file.
        media_type: such as `image/jpeg`.
        etag: names it, for `enhance_if_new`.
        camera, device, tiles: how it was enhanced.
        psnr, ssim: against the reference, None where none was sent. `psnr` is infinite where they are equal.
    """

    data: bytes
    media_type: str
    etag: str
    camera: str
    device: str
    tiles: int
    psnr: float | None
    ssim: float | None


class Client:
    """A connection to one service; a context manager."""

    def __init__(self, url: str, timeout_s: float = 300.0, api_key: str | None = None) -> None:
        """Connect at the first request.

        Args:
            url: where the service is, such as http://localhost:8000.
            timeout_s: seconds to wait for an answer.
            api_key: where the service needs one.
        """
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._http = httpx.Client(base_url=url, timeout=timeout_s, headers=headers)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def enhance(self, image: bytes, options: EnhanceOptions | None = None, reference: bytes | None = None) -> Enhanced:
        """Enhance a picture.

        Args:
            image: the file.
            options: defaults where None.
            reference: a picture of the same size to measure the answer against.

        Raises:
            Problem: the service refused.
        """
        return _enhanced(self._ask(image, options, reference, {}))

    def enhance_if_new(
        self, image: bytes, known: str, options: EnhanceOptions | None = None, reference: bytes | None = None
    ) -> Enhanced | None:
        """Enhance a picture unless its answer is at hand already.

        Args:
            image, options, reference: as for `enhance`.
            known: the `etag` of the answer that is at hand.

        Returns:
            The picture, or None where it would be the same; nothing is computed for it.

        Raises:
            Problem: the service refused.
        """
        answer = self._ask(image, options, reference, {"If-None-Match": known})
        return None if answer.status_code == httpx.codes.NOT_MODIFIED else _enhanced(answer)

    def _ask(
        self, image: bytes, options: EnhanceOptions | None, reference: bytes | None, headers: dict[str, str]
    ) -> httpx.Response:
        files = {"image": image} if reference is None else {"image": image, "reference": reference}
        return self._http.post("/enhance", files=files, data=_fields(options), headers=headers)

    def enhance_several(
        self, pictures: Iterable[tuple[str, bytes]], to: BinaryIO, options: EnhanceOptions | None = None
    ) -> BatchErrors:
        """Enhance several pictures in one request.

        Args:
            pictures: their names and files.
            to: gets the zip as it comes; has to be readable and seekable as well.
            options: of all of them, defaults where None.

        Returns:
            Those that failed.

        Raises:
            Problem: the service refused the request as a whole.
            zipfile.BadZipFile: the answer broke off.
        """
        # a zip, so that one picture is answered like many
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, data in pictures:
                archive.writestr(name, data)
        headers = {"Content-Type": "application/zip"}
        body, query = packed.getvalue(), _fields(options)
        with self._http.stream("POST", "/enhance", content=body, params=query, headers=headers) as answer:
            if answer.is_error:
                answer.read()
            _check(answer)
            to.writelines(answer.iter_bytes())
        with zipfile.ZipFile(to) as archive:
            return BatchErrors.model_validate_json(archive.read("errors.json"))

    def evaluate(self, image: bytes, reference: bytes, options: EvaluateOptions | None = None) -> Evaluation:
        """Measure a picture against a reference, before and after it is enhanced.

        Raises:
            Problem: the service refused.
        """
        files = {"image": image, "reference": reference}
        return _read(self._http.post("/evaluate", files=files, data=_fields(options)), Evaluation)

    def cameras(self) -> Cameras:
        """List the generators.

        Raises:
            Problem: the service refused.
        """
        return _read(self._http.get("/cameras"), Cameras)

    def livez(self) -> Liveness:
        """Ask whether the process is alive; a dead one answers too."""
        return Liveness.model_validate_json(self._http.get("/livez").content)

    def readyz(self) -> Readiness:
        """Ask whether it takes pictures now, and why not."""
        return Readiness.model_validate_json(self._http.get("/readyz").content)

    def metrics(self) -> str:
        """Return the metrics in Prometheus' text format."""
        return self._http.get("/metrics").text


def _fields(options: BaseModel | None) -> dict[str, Any]:
    return {} if options is None else options.model_dump(mode="json", exclude_unset=True, exclude_none=True)


def _enhanced(answer: httpx.Response) -> Enhanced:
    _check(answer)
    told = answer.headers
    return Enhanced(
        data=answer.content,
        media_type=told["content-type"],
        etag=told["etag"],
        camera=told["x-pix2dslr-camera"],
        device=told["x-pix2dslr-device"],
        tiles=int(told["x-pix2dslr-tiles"]),
        psnr=_number(told, "x-psnr"),
        ssim=_number(told, "x-ssim"),
    )


def _number(headers: Mapping[str, str], name: str) -> float | None:
    return float(headers[name]) if name in headers else None


def _read(answer: httpx.Response, model: type[Model]) -> Model:
    _check(answer)
    return model.model_validate_json(answer.content)


def _check(answer: httpx.Response) -> None:
    if answer.headers.get("content-type") == "application/problem+json":
        after = answer.headers.get("retry-after")
        raise Problem(ProblemDetails.model_validate_json(answer.content), None if after is None else int(after))
    answer.raise_for_status()
