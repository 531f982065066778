"""GET /cameras: which generators there are."""

from fastapi import APIRouter, Request

from service.problems import documented
from service.schemas import Camera, Cameras
from service.state import state_of

router = APIRouter()


@router.get("/cameras", summary="List the generators", response_model=Cameras, responses=documented(503))
async def cameras(request: Request) -> Cameras:
    """List the cameras that there are generators for."""
    catalogue = state_of(request).catalogue
    return Cameras(cameras=[Camera.of(catalogue, name) for name in catalogue.cameras])
