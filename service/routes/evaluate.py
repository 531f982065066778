"""POST /evaluate: how near a picture is to its reference, before and after it is enhanced."""

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from service.caller import Caller
from service.codec import FORMATS, Picture, encode, media_type
from service.codec import Header as PictureHeader
from service.edge.clients import client_of
from service.evaluation import Comparison, admit, compare, side_by_side
from service.negotiation import accepted
from service.observation import record_of
from service.pipeline import Ticket
from service.problems import MalformedRequest, documented
from service.routes.enhance import outcome_headers
from service.routes.pieces import InPieces
from service.routes.threads import Threads, until_hung_up
from service.routes.upload import form_schema, read_upload
from service.schemas import EvaluateOptions, Evaluation
from service.state import State, state_of
from service.telemetry import Stopwatch

router = APIRouter()


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
        **documented(400, 401, 403, 408, 413, 415, 421, 422, 429, 500, 503, 504),
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
    options, caller = upload.options, Caller(client_of(request.scope))
    headers: list[PictureHeader] = []

    def begin() -> Ticket:
        ticket, header = admit(state.pipeline, upload.image, reference, options, caller)
        headers.append(header)
        return ticket

    def work(ticket: Ticket, watch: Stopwatch) -> Response:
        comparison = compare(state.pipeline, ticket, reference, headers[0], options, watch)
        return _answer(comparison, accept, watch, state)

    threads: Threads = request.app.state.threads
    with record_of(request).picture() as watch:
        timed = partial(work, watch=watch)
        return await until_hung_up(request.receive, lambda: threads.enhance(caller, begin, timed), caller.cancellation)


def _answer(comparison: Comparison, accept: str, watch: Stopwatch, state: State) -> Response:
    outcome = comparison.outcome
    kind = accepted(accept, "application/json", [media_type(name) for name in FORMATS])
    wanted = next((name for name in FORMATS if media_type(name) == kind), None)
    if wanted is not None:
        sides = side_by_side(comparison.before, comparison.after, comparison.reference)
        picture = Picture(sides, PictureHeader(wanted, sides.shape[0], sides.shape[1]))
        body = encode(picture, wanted, keep_metadata=False)
    else:
        body = comparison.scores.model_dump_json().encode()
    state.metrics.picture_done(watch)
    headers = {**outcome_headers(outcome), "Server-Timing": watch.server_timing(), "Cache-Control": "no-store"}
    return InPieces(body, media_type=kind, headers=headers)
