"""GET /cameras: which generators there are."""

from fastapi import APIRouter, Request, Response

from service.negotiation import entity_tag, is_known
from service.problems import documented
from service.schemas import IF_NONE_MATCH, Camera, Cameras
from service.state import state_of

router = APIRouter()


@router.get(
    "/cameras",
    operation_id="cameras",
    summary="List the generators",
    response_model=Cameras,
    responses={
        200: {"headers": {"ETag": {"description": "For `If-None-Match`.", "schema": {"type": "string"}}}},
        304: {"description": "`If-None-Match` names the answer's `ETag`."},
        **documented(401, 421, 503),
    },
    openapi_extra={"parameters": [IF_NONE_MATCH]},
)
async def cameras(request: Request) -> Response:
    """List the cameras that there are generators for."""
    catalogue = state_of(request).catalogue
    cameras = [Camera.of(catalogue, name) for name in catalogue.cameras]
    answer = Cameras(cameras=cameras).model_dump_json()
    headers = {"ETag": entity_tag(answer), "Cache-Control": "no-cache"}
    if is_known(request.headers.getlist("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(answer, 200, headers, "application/json")
