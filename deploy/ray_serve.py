"""The service as a Ray Serve deployment, one replica a GPU: `serve run deploy.ray_serve:app gpus=1`. See docs/bulk.md.

Settings are read from each replica's environment, as everywhere. What `pix2dslr serve` does for connections, before a
request is one, is not here: Serve's own proxy takes them.
"""

import asyncio
from typing import Annotated, Final

from fastapi import FastAPI
from pydantic import BaseModel, Field
from ray import serve
from ray.serve import Application, Deployment

from service.app import create_app
from service.settings import Settings
from service.state import State

_LOOK_EVERY_S: Final = 0.05
_MOST_AT_ONCE: Final = 1000
"""Requests that Serve may pass to a replica; with less than the service takes, none would get its 429."""


class Options(BaseModel):
    """What `serve run` may be given as NAME=VALUE.

    Attributes:
        cpus: CPUs of a replica, which run the generator where there is no GPU.
        gpus: GPUs of a replica, or a part of one.
        min_replicas, max_replicas: between which their number follows the load.
        ongoing: requests under way in each, on average, that the number of replicas is chosen for.
    """

    cpus: Annotated[int, Field(ge=1)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0
    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 8
    ongoing: Annotated[float, Field(gt=0)] = 4


@serve.deployment(name="pix2dslr", max_ongoing_requests=_MOST_AT_ONCE)
@serve.ingress()
class Replica:
    """One process with the whole app; Serve runs its lifespan, which loads the generators."""

    def __init__(self, threads: int) -> None:
        settings = Settings(threads=threads)
        # by default as many as suit the whole machine, of which a replica has a part
        workers = threads + 1 if settings.decode_workers is None else settings.decode_workers
        self._app = create_app(settings.model_copy(update={"decode_workers": workers}))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._app

    async def check_health(self) -> None:
        """Return once the replica takes pictures: Serve sends it none before. Raises where it never will again."""
        state: State = self._app.state.parts
        while state.loaded is None and state.failure is None:  # noqa: ASYNC110  a thread loads, and tells nobody
            await asyncio.sleep(_LOOK_EVERY_S)
        if state.not_ready or not state.alive:
            raise RuntimeError(state.failure or ", ".join(state.not_ready))


def app(options: Options) -> Application:
    """Build the deployment; what runs when a replica is to go has as long as `PIX2DSLR_DRAIN_TIMEOUT_S` says."""
    deployment: Deployment = Replica  # type: ignore[assignment]  # what the decorators made of it
    return deployment.options(
        autoscaling_config={
            "min_replicas": options.min_replicas,
            "max_replicas": options.max_replicas,
            "target_ongoing_requests": options.ongoing,
        },
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        graceful_shutdown_timeout_s=Settings().drain_timeout_s,
    ).bind(options.cpus)
