"""POST /enhance: a picture in, the enhanced picture out."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from fastapi import APIRouter, Request, Response

from service.archive import File, Limits
from service.caller import Caller, Cancellation
from service.codec import FORMATS, Format, Header, as_srgb, encode, media_type
from service.edge.clients import client_of
from service.edge.house import house_of
from service.edge.rooms import Held, held_of
from service.negotiation import accepted, entity_tag, is_known
from service.observation import RequestRecord, record_of
from service.pipeline import Outcome, Ticket, measured
from service.problems import documented
from service.quality import psnr, require_same_size, ssim
from service.routes.batch import EnhancedZip
from service.routes.pieces import InPieces
from service.routes.threads import Threads, until_hung_up
from service.routes.upload import BINARY, Upload, form_schema, read_upload
from service.schemas import EnhanceOptions
from service.state import State, state_of
from service.telemetry import Stopwatch
from service.versions import answers_depend_on

router = APIRouter()

HEADERS: Final = {
    "ETag": ("Strong: of the picture, the options and the generator; for `If-None-Match`. None on a zip.", '"9f86d0…"'),
    "Server-Timing": (
        "Milliseconds of decode, queue, inference, blend, encode and in total.",
        "decode;dur=9.1, queue;dur=4.2, inference;dur=61.0, blend;dur=2.2, encode;dur=4.9, total;dur=82.6",
    ),
    "X-Pix2DSLR-Camera": ("Whose generator was used.", "iphone"),
    "X-Pix2DSLR-Device": ("Where it ran: cuda or cpu.", "cpu"),
    "X-Pix2DSLR-Tiles": ("How many tiles were enhanced; none at strength 0.", "24"),
    "X-Pix2DSLR-Frames": (
        "How many frames or pages the file has, where it has more than one: the first is answered.",
        "12",
    ),
    "X-PSNR": ("dB against the reference, where one came; inf where they are equal.", "22.650"),
    "X-SSIM": ("Likewise.", "0.8095"),
    "X-Request-ID": ("The request's id, the client's own where it sent one.", "0b9d1cf0b24a4e0fa2d0b5f4f4e6a3a1"),
}
"""Headers of an answer, each with its meaning and an example."""


@router.post(
    "/enhance",
    operation_id="enhance",
    summary="Enhance a picture, or several",
    response_class=Response,
    responses={
        200: {
            "description": "The enhanced picture, of the same size; several come as a zip with an `errors.json` in it.",
            "content": {
                **{media_type(name): {"schema": BINARY} for name in FORMATS},
                EnhancedZip.media_type: {"schema": BINARY},
            },
            "headers": {
                name: {"description": text, "schema": {"type": "string"}, "example": example}
                for name, (text, example) in HEADERS.items()
            },
        },
        304: {"description": "`If-None-Match` names the answer's `ETag`: nothing was computed, nothing is sent."},
        **documented(400, 401, 403, 408, 413, 415, 421, 422, 429, 500, 503, 504),
    },
    openapi_extra=form_schema(
        EnhanceOptions,
        "The same scene at the same size: X-PSNR and X-SSIM are answered.",
        reference_required=False,
    ),
)
async def enhance(request: Request) -> Response:
    """Enhance JPEG, PNG, WebP, TIFF, BMP, HEIC or AVIF pictures of any size up to the limit.

    Send a picture as the file `image` of a multipart form, or as the raw body with its `image/…` type and the options
    as query parameters. Send several as more files `image`, or as one zip in place of a picture: a zip comes back,
    with each picture in it as soon as it is done.
    """
    state = state_of(request)
    settings = state.settings
    allowance = house_of(request).limits
    most = allowance.most_pictures(settings.max_files)
    limits = Limits(most, settings.max_body_bytes, settings.max_unzipped_bytes)
    accept = ", ".join(request.headers.getlist("accept"))
    upload = await read_upload(request, EnhanceOptions, limits)
    threads: Threads = request.app.state.threads
    if upload.several:
        allowance.count(client_of(request.scope), len(upload.files) - 1)  # one was counted when it came
        return _answer_several(state, upload, accept, threads, record_of(request), held_of(request.scope))
    known = request.headers.getlist("if-none-match")
    caller = Caller(client_of(request.scope))
    with record_of(request).picture() as watch:
        one = _One(state, upload, accept, known, watch)
        return await until_hung_up(
            request.receive, lambda: threads.enhance(caller, lambda: one.admit(caller), one.answer), caller.cancellation
        )


def _answer_several(
    state: State, upload: Upload[EnhanceOptions], accept: str, threads: Threads, record: RequestRecord, held: Held
) -> Response:
    options, pipeline = upload.options, state.pipeline
    # an unknown camera is refused once, before any picture
    camera = state.catalogue.named(options.camera)
    generator = state.catalogue[camera]

    async def enhance(file: File, cancellation: Cancellation) -> tuple[bytes, Format]:
        caller = Caller(held.client, cancellation)

        def admit() -> Ticket:
            image = file.read()
            header = pipeline.read_header(image, caller)
            wanted = options.format or accepted_format(accept, header.format)
            return pipeline.admit(image, camera, options.overlap, wanted, caller, header, options.strength)

        def work(ticket: Ticket, watch: Stopwatch) -> tuple[bytes, Format]:
            outcome = pipeline.enhance(ticket, watch, options.strength)
            cancellation.check()
            with watch.stage("encode"):
                body = _encode(outcome, options)
            state.metrics.picture_done(watch)
            return body, outcome.format

        async with held.unzipped(file.unzips):
            with record.picture("picture") as watch:
                answer = await threads.enhance(caller, admit, partial(work, watch=watch))
        held.answer(len(answer[0]))
        return answer

    headers = {
        "X-Pix2DSLR-Camera": camera,
        "X-Pix2DSLR-Device": generator.device,
        "Vary": "Accept",
        "Cache-Control": "no-store",  # as it is written its entries come in another order each time
    }
    return EnhancedZip(
        upload.files,
        enhance,
        state.settings.request_timeout_s,
        options.format,
        headers,
        state.metrics.rejected,
        held.sent,
    )


class _One:
    """A request for one picture."""

    def __init__(
        self, state: State, upload: Upload[EnhanceOptions], accept: str, known: Sequence[str], watch: Stopwatch
    ) -> None:
        self._state = state
        self._upload = upload
        self._accept = accept
        self._known = known
        self._watch = watch
        self._caching: Mapping[str, str] = {}
        self._reference: Header | None = None

    def admit(self, caller: Caller) -> Ticket | Response:
        """Read the headers and give the picture its place; a client that has its answer already gets 304."""
        upload, options, pipeline = self._upload, self._upload.options, self._state.pipeline
        image = upload.image
        header = pipeline.read_header(image, caller)
        wanted = options.format or accepted_format(self._accept, header.format)
        camera = self._state.catalogue.named(options.camera)
        tag = _tag(self._state, upload, image, camera, wanted)
        self._caching = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Accept"}
        if is_known(self._known, tag):
            return Response(status_code=304, headers=self._caching)
        if upload.reference is not None:
            self._reference = pipeline.read_header(upload.reference, caller)
            require_same_size(header, self._reference)
        ticket = pipeline.admit(image, camera, options.overlap, wanted, caller, header, options.strength)
        return ticket if self._reference is None else measured(ticket, self._reference)

    def answer(self, ticket: Ticket) -> Response:
        """Enhance the picture, and measure it where there is a reference."""
        options, pipeline, watch = self._upload.options, self._state.pipeline, self._watch
        outcome = pipeline.enhance(ticket, watch, options.strength)
        headers = {**outcome_headers(outcome), **self._caching}
        if self._upload.reference is not None and self._reference is not None:
            output = outcome.enhancement.picture
            ticket.caller.cancellation.check()
            with watch.stage("quality"):
                shown, truth = (
                    as_srgb(output),
                    as_srgb(pipeline.decode(self._upload.reference, self._reference, ticket.caller)),
                )
                headers["X-PSNR"] = f"{psnr(shown, truth):.3f}"
                headers["X-SSIM"] = f"{ssim(shown, truth):.4f}"
        ticket.caller.cancellation.check()
        with watch.stage("encode"):
            body = _encode(outcome, options)
        self._state.metrics.picture_done(watch)
        headers["Server-Timing"] = watch.server_timing()
        return InPieces(body, media_type=media_type(outcome.format), headers=headers)


def _encode(outcome: Outcome, options: EnhanceOptions) -> bytes:
    picture, keep = outcome.enhancement.picture, options.metadata == "keep"
    return encode(picture, outcome.format, options.encoder_quality, keep, spend=True)


def _tag(state: State, upload: Upload[EnhanceOptions], image: bytes, camera: str, wanted: Format | None) -> str:
    """The entity tag of an answer: of all that its bytes depend on, and known before anything is decoded."""
    options = upload.options.model_copy(update={"camera": camera, "format": wanted})
    generator = state.catalogue[camera]
    return entity_tag(
        image,
        upload.reference or b"",
        options.model_dump_json(),
        state.catalogue.file_sha256(camera),
        generator.device,
        generator.provider,
        answers_depend_on(),
    )


def outcome_headers(outcome: Outcome) -> dict[str, str]:
    """Return the headers that say how a picture was enhanced."""
    frames = outcome.enhancement.picture.header.frames
    return {
        **({"X-Pix2DSLR-Frames": str(frames)} if frames > 1 else {}),
        "X-Pix2DSLR-Camera": outcome.camera,
        "X-Pix2DSLR-Device": outcome.generator.device,
        "X-Pix2DSLR-Tiles": str(outcome.enhancement.tiles),
        "Vary": "Accept",
    }


def accepted_format(accept: str, own: str) -> Format | None:
    """Return the format that an Accept header asks for, None where a picture's own will do.

    Args:
        accept: the header.
        own: the picture's own format, which need not be one that can be written.
    """
    chosen = accepted(accept, f"image/{own}", [media_type(format_) for format_ in FORMATS])
    return next((format_ for format_ in FORMATS if media_type(format_) == chosen and format_ != own), None)
