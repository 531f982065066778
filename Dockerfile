# The service's image, without torch.
#   BASE_IMAGE  any image with Python 3.11 or newer and pip
#   EXTRAS      cpu, or cuda: adds the CUDA libraries (the driver comes from the host)
ARG BASE_IMAGE=python:3.12-slim

FROM ${BASE_IMAGE} AS build
ARG EXTRAS=cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# without a pip of its own: the base image's fills it, and nothing is installed in it later
RUN python -m venv --without-pip /opt/venv

# What is installed follows from these files alone, so a change of the source takes no download.
COPY pyproject.toml constraints.txt constraints-cuda.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -c 'import sys, tomllib; \
        project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
        print(*project["dependencies"], *project["optional-dependencies"][sys.argv[1]], sep="\n")' \
        "$EXTRAS" > requirements.txt \
 && python -m pip --python /opt/venv/bin/python install -c constraints.txt -c constraints-cuda.txt -r requirements.txt \
 && python -m pip install -c constraints.txt hatchling
# onnxruntime-gpu runs on the CPU without its CUDA kernels, 284 MB
RUN [ "$EXTRAS" = cuda ] || rm -f /opt/venv/lib/python*/site-packages/onnxruntime/capi/libonnxruntime_providers_cuda.so

COPY . .
# --no-index: what the layer above forgot fails here instead of being fetched unpinned
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && python -m pip --python /opt/venv/bin/python install --no-index --find-links dist "pix2dslr[$EXTRAS]"


# No apt packages: the wheels need libstdc++, libgcc and zlib alone, which every Debian image has for apt and dpkg.
FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="pix2dslr" \
      org.opencontainers.image.description="Photos from cheap cameras, enhanced towards a DSLR's: the HTTP service" \
      org.opencontainers.image.version="0.1.0" \
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
