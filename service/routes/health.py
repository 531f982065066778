"""Liveness, readiness and metrics: never behind limits or the queue."""

from typing import Final

import anyio
import anyio.to_thread
from fastapi import APIRouter, Request, Response

from service.schemas import Liveness, Readiness
from service.state import state_of

router = APIRouter()
metrics_router = APIRouter()
"""/metrics, which may have a port of its own."""

_EXAMPLE = 'pix2dslr_tiles_total{device="cpu"} 1189.0\n'
_NOW = {"Cache-Control": "no-store"}
"""What is true now is no news later."""
_WRITING: Final = anyio.CapacityLimiter(1)
"""Metrics take some milliseconds, also of processes that have to be asked: in a thread, and one at a time."""


@router.get("/livez", operation_id="livez", summary="Is the process alive?", responses={503: {"model": Liveness}})
@router.get("/healthz", operation_id="healthz", summary="The same as /livez", responses={503: {"model": Liveness}})
async def livez(request: Request, response: Response) -> Liveness:
    """Answer 200 while the event loop and the inference threads run and the device answers, else 503: restart it."""
    alive = state_of(request).alive
    response.status_code = 200 if alive else 503
    response.headers.update(_NOW)
    return Liveness(alive=alive)


@router.get(
    "/readyz", operation_id="readyz", summary="Does it take pictures now?", responses={503: {"model": Readiness}}
)
async def readyz(request: Request, response: Response) -> Readiness:
    """Answer 200 once the generators are loaded and warm, 503 with reasons before, and while it shuts down."""
    state = state_of(request)
    reasons = state.not_ready
    response.headers.update(_NOW)
    if reasons:
        response.status_code = 503
    if state.loaded is None:
        return Readiness(ready=False, reasons=reasons)
    generator = state.loaded[state.loaded.default]
    return Readiness(
        ready=not reasons,
        reasons=reasons,
        device=generator.device,
        devices=dict(state.devices),
        provider=generator.provider,
        cameras=list(state.loaded.cameras),
    )


@metrics_router.get(
    "/metrics",
    operation_id="metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={
        200: {
            "content": {
                "text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE},
                "application/openmetrics-text": {"schema": {"type": "string"}, "example": f"{_EXAMPLE}# EOF\n"},
            }
        }
    },
)
async def metrics(request: Request) -> Response:
    """Answer the metrics in Prometheus' text format, or in OpenMetrics where `Accept` asks for it."""
    accept = ", ".join(request.headers.getlist("accept"))
    text, kind = await anyio.to_thread.run_sync(state_of(request).metrics.text, accept, limiter=_WRITING)
    return Response(text, 200, {**_NOW, "Vary": "Accept"}, kind)
