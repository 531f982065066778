"""What the service is measured against: the handler that one writes first.

`python -m benchmarks.naive MODEL PORT` serves POST /enhance that decodes, runs the session once a tile inside the
request, and pastes what comes back side by side. It has the same generator, framework and server.
"""

import sys
from typing import Annotated

import cv2
import numpy as np
import onnxruntime as ort
import uvicorn
from fastapi import FastAPI, File, Response

from service.spec import TILE
from service.tiling import context_of


def create_app(model: str) -> FastAPI:
    """Make the app around one generator."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    app = FastAPI()

    @app.post("/enhance")
    def enhance(image: Annotated[bytes, File()]) -> Response:
        decoded = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB)
        picture = np.asarray(decoded, np.uint8)
        height, width = picture.shape[:2]
        padded = np.pad(picture, ((0, -height % TILE), (0, -width % TILE), (0, 0)), "reflect")
        context = context_of(picture)[None]
        output = np.empty_like(padded)
        for top in range(0, padded.shape[0], TILE):
            for left in range(0, padded.shape[1], TILE):
                here = np.s_[top : top + TILE, left : left + TILE]
                enhanced = session.run(None, {"tiles": padded[here][None], "context": context})[0][0]
                output[here] = (enhanced * 255).round()
        encoded = cv2.imencode(".jpg", cv2.cvtColor(output[:height, :width], cv2.COLOR_RGB2BGR))[1]
        return Response(encoded.tobytes(), media_type="image/jpeg")

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(sys.argv[1]), port=int(sys.argv[2]), log_level="warning")
