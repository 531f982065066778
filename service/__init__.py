"""The online half of pix2dslr: an HTTP service that enhances photos tile by tile."""

import os

# ONNX Runtime's wheels send usage data to Microsoft, and write a device id to the home folder, unless told not to
# before they are first imported. A service that is given people's photos calls nobody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
