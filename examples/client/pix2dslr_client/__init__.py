"""A typed client for pix2dslr; `models` is made from the service's OpenAPI document. Needs httpx and pydantic."""

from pix2dslr_client.client import Client, Enhanced, Problem
from pix2dslr_client.models import (
    BatchError,
    BatchErrors,
    Camera,
    Cameras,
    EnhanceOptions,
    EvaluateOptions,
    Evaluation,
    ProblemDetails,
    Readiness,
)

__all__ = [
    "BatchError",
    "BatchErrors",
    "Camera",
    "Cameras",
    "Client",
    "EnhanceOptions",
    "Enhanced",
    "EvaluateOptions",
    "Evaluation",
    "Problem",
    "ProblemDetails",
    "Readiness",
]
