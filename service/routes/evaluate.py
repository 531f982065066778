"""POST /evaluate: how near a picture is to its reference, before and after it is enhanced."""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter, Header, Request, Response

from service.alignment import align
from service.codec import FORMATS, Picture, as_srgb, decode, encode, media_type
from service.codec import Header as PictureHeader
from service.negotiation import accepted
from service.pipeline import Outcome
from service.problems import MalformedRequest, documented
from service.quality import colour_difference, psnr, require_same_size, seam_index, ssim
from service.routes.enhance import outcome_headers
from service.routes.upload import Cancellation, Upload, form_schema, read_upload, run_in_thread
from service.schemas import Alignment, EvaluateOptions, Evaluation, Gain, Scores
from service.state import State, state_of
from service.telemetry import Stopwatch

router = APIRouter()

Image = npt.NDArray[np.uint8]


@router.post(
    "/evaluate",
    operation_id="evaluate",
    summary="Measure a picture against a reference, before and after",
    response_model=Evaluation,
    responses={
        200: {
            "description": "The scores, or with an Accept header that names an image type the comparison as a "
            "picture: input, output and reference side by side.",
            "content": {media_type(name): {"schema": {"type": "string", "format": "binary"}} for name in FORMATS},
        },
        **documented(400, 413, 415, 422, 429, 500, 503, 504),
    },
    openapi_extra=form_schema(
        EvaluateOptions, "What the picture should look like, such as the DSLR's.", reference_required=True
    ),
)
async def evaluate(request: Request, accept: Annotated[str, Header()] = "*/*") -> Response:
    """Enhance the file `image` and measure it, before and after, against the file `reference`."""
    upload = await read_upload(request, EvaluateOptions)
    if upload.reference is None:
        raise MalformedRequest("The file reference is missing.")
    reference, state = upload.reference, state_of(request)
    return await run_in_thread(request, lambda cancellation: _work(state, upload, reference, accept, cancellation))


def _work(
    state: State, upload: Upload[EvaluateOptions], file: bytes, accept: str, cancellation: Cancellation
) -> Response:
    options, pipeline, watch = upload.options, state.pipeline, Stopwatch()
    header = pipeline.read_header(file)
    if not options.align:
        require_same_size(pipeline.read_header(upload.image), header)
    outcome = pipeline.enhance(
        upload.image,
        watch,
        options.camera,
        options.strength,
        options.overlap,
        on_job=cancellation.attach,
        keep_source=True,
    )
    assert outcome.source is not None
    before = as_srgb(outcome.source)
    after = as_srgb(outcome.enhancement.picture)
    with watch.stage("quality"):
        seams = seam_index(before, after, outcome.enhancement.layout)
        reference = as_srgb(decode(file, header))
        alignment = None
        if options.align:
            aligned = align(before, reference)
            reference = aligned.reference
            height, width = reference.shape[:2]
            here = np.s_[aligned.top : aligned.top + height, aligned.left : aligned.left + width]
            before, after = before[here], after[here]
            alignment = Alignment(
                inliers=aligned.inliers, left=aligned.left, top=aligned.top, width=width, height=height
            )
        scores = _scores(before, reference), _scores(after, reference)
    kind = accepted(accept, "application/json", [media_type(name) for name in FORMATS])
    wanted = next((name for name in FORMATS if media_type(name) == kind), None)
    if wanted is not None:
        sides = side_by_side(before, after, reference)
        picture = Picture(sides, PictureHeader(wanted, sides.shape[0], sides.shape[1]))
        body = encode(picture, wanted, keep_metadata=False)
    else:
        answer = _answer(outcome, scores, seams, alignment, watch)
        body = answer.model_dump_json().encode()
    watch.observe(state.metrics)
    headers = {**outcome_headers(outcome), "Server-Timing": watch.server_timing(), "Cache-Control": "no-store"}
    return Response(body, media_type=kind, headers=headers)


def _answer(
    outcome: Outcome,
    scores: tuple[Scores, Scores],
    seams: float | None,
    alignment: Alignment | None,
    watch: Stopwatch,
) -> Evaluation:
    before, after = scores
    height, width = outcome.enhancement.picture.pixels.shape[:2]
    return Evaluation(
        camera=outcome.camera,
        device=outcome.generator.device,
        width=width,
        height=height,
        tiles=outcome.enhancement.layout.tiles,
        input=before,
        output=after,
        gain=Gain(
            psnr=None if before.psnr is None or after.psnr is None else after.psnr - before.psnr,
            ssim=after.ssim - before.ssim,
            colour_difference=after.colour_difference - before.colour_difference,
        ),
        seam_index=seams,
        alignment=alignment,
        timings=dict(watch.seconds),
    )


def _scores(picture: Image, reference: Image) -> Scores:
    ratio = psnr(picture, reference)
    return Scores(
        psnr=ratio if np.isfinite(ratio) else None,
        ssim=ssim(picture, reference),
        colour_difference=colour_difference(picture, reference),
    )


def side_by_side(*pictures: Image) -> Image:
    """Lay pictures (H, W, 3) of one size next to each other, 8 white pixels apart."""
    gap = np.full((pictures[0].shape[0], 8, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)][1:]
    return np.concatenate(parts, axis=1)
