"""GET /cameras: which generators there are."""

from fastapi import APIRouter, Request

from service.catalogue import Catalogue
from service.problems import documented
from service.schemas import Camera, Cameras
from service.state import state_of

router = APIRouter()


@router.get("/cameras", summary="List the generators", response_model=Cameras, responses=documented(503))
async def cameras(request: Request) -> Cameras:
    """List the cameras that there are generators for."""
    catalogue = state_of(request).catalogue
    return Cameras(cameras=[_camera(catalogue, name) for name in catalogue.cameras])


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
