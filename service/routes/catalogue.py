"""GET /cameras: which generators there are."""

from fastapi import APIRouter, Request, Response

from service.catalogue import Catalogue
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
        **documented(503),
    },
    openapi_extra={"parameters": [IF_NONE_MATCH]},
)
async def cameras(request: Request) -> Response:
    """List the cameras that there are generators for."""
    catalogue = state_of(request).catalogue
    answer = Cameras(cameras=[_camera(catalogue, name) for name in catalogue.cameras]).model_dump_json()
    headers = {"ETag": entity_tag(answer), "Cache-Control": "no-cache"}
    if is_known(request.headers.getlist("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(answer, 200, headers, "application/json")


def _camera(catalogue: Catalogue, name: str) -> Camera:
    generator = catalogue[name]
    spec = generator.spec
    return Camera(
        name=name,
        default=name == catalogue.default,
        architecture=spec.architecture,
        trained_on=spec.trained_on,
        psnr=spec.psnr,
        ssim=spec.ssim,
        overlap=spec.overlap,
        bytes=catalogue.file_bytes(name),
        loaded=True,
        device=generator.device,
    )
