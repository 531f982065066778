# The service's image, without torch.
#   BASE_IMAGE  any image with Python 3.11 or newer and pip
#   EXTRAS      cpu, or cuda: adds the CUDA libraries (the driver comes from the host)
#   REVISION    the commit that it is built from, for its label
ARG BASE_IMAGE=python:3.12-slim@sha256:3ecf5ebe01fef4b6e81be34511fb40bf378ea7fd81ab215ba15b2775ef85413d

FROM ${BASE_IMAGE} AS build
ARG EXTRAS=cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# without a pip of its own: the base image's fills it, and nothing is installed in it later
RUN python -m venv --without-pip /opt/venv

# What is installed follows from these files alone, so a change of the source takes no download. With `otel`: traces are
# sent only where they are asked for, and whoever asks should need no image of his own.
COPY requirements requirements
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/venv/bin/python install --no-compile --require-hashes --only-binary :all: \
        -r "requirements/$EXTRAS.txt" \
 && python -m pip install --require-hashes --only-binary :all: -r requirements/build.txt -r requirements/sbom.txt

COPY . .
# --no-index: what the layer above forgot fails here instead of being fetched unpinned
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && python -m pip --python /opt/venv/bin/python install --no-compile --no-index --find-links dist "pix2dslr[$EXTRAS,otel]"

# What nothing here uses goes: ONNX Runtime's C library (Python's module has it within) and its tools for making models,
# tests, type stubs. onnxruntime-gpu runs on the CPU without its CUDA and TensorRT kernels.
RUN cd /opt/venv/lib/python3*/site-packages \
 && (cd onnxruntime && rm -rf capi/libonnxruntime.so.* datasets quantization tools transformers) \
 && { [ "$EXTRAS" = cuda ] || rm -f onnxruntime/capi/libonnxruntime_providers_cuda.so \
        onnxruntime/capi/libonnxruntime_providers_tensorrt.so; } \
 && find . -type d -name tests -prune -exec rm -rf {} + \
 && find . -name '*.pyi' -delete \
# compiled once, here: the image can't write them, and nothing changes in it. Without the time in them two builds agree
 && python -m compileall -q -j 0 --invalidation-mode unchecked-hash .
# what is in it, for whoever watches for holes
RUN mkdir -p /opt/venv/share/sbom \
 && python -m cyclonedx_py environment /opt/venv/bin/python --pyproject /build/pyproject.toml --mc-type application \
        --output-reproducible --output-format JSON --output-file /opt/venv/share/sbom/pix2dslr.cdx.json


# No apt packages: the wheels need libstdc++, libgcc and zlib alone, which every Debian image has for apt and dpkg.
FROM ${BASE_IMAGE}
ARG BASE_IMAGE
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pix2dslr" \
      org.opencontainers.image.description="Photos from cheap cameras, enhanced towards a DSLR's: the HTTP service" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
# The root file system may be read-only: uploads stay in memory.
# ORT_DISABLE_TELEMETRY: ONNX Runtime's own wheels send usage data to Microsoft unless told not to.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    PIX2DSLR_HOST=0.0.0.0 \
    PIX2DSLR_PORT=8000
# a number, so that Kubernetes' runAsNonRoot can see that it is not root
USER 10001:10001
EXPOSE 8000
# /readyz, not /livez: "healthy" is what other containers wait for, and Docker restarts nothing for being unhealthy.
# http.client, not urllib: a proxy from the environment must not come between.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; \
        probe = http.client.HTTPConnection('127.0.0.1', int(os.environ['PIX2DSLR_PORT']), timeout=4); \
        probe.request('GET', '/readyz'); \
        sys.exit(probe.getresponse().status != 200)"]
STOPSIGNAL SIGTERM
# exec form: the server is process 1 and gets SIGTERM itself
CMD ["pix2dslr", "serve"]
