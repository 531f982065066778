"""Every setting of the service, from the environment with the prefix PIX2DSLR_."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.keys import parse_keys
from service.logs import Format
from service.sessions import Device

_LARGEST_BATCH = 1024
SHIPPED_MODELS = Path(__file__).with_name("models")


def _ascending_from_1(sizes: tuple[int, ...]) -> tuple[int, ...]:
    if not sizes or sizes[0] != 1 or list(sizes) != sorted(set(sizes)) or sizes[-1] > _LARGEST_BATCH:
        raise ValueError(f"sizes must ascend from 1 to at most {_LARGEST_BATCH}")
    return sizes


def _none_or_two(workers: int) -> int:
    if workers != 0 and workers < 2:
        raise ValueError("0, or at least 2: one is always left for headers")
    return workers


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _origins(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        # what browsers send as Origin: no path, no slash at the end
        if value != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@*\s]+", value):
            raise ValueError(f"{value} is no origin: write https://example.org, or * for any")
    return values


def _hosts(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not re.fullmatch(r"(\*\.)?[A-Za-z0-9.-]+|\[?[0-9A-Fa-f:.]+\]?", value):
            raise ValueError(f"{value} is no host: write photos.example.org, or *.example.org, without a port")
    return tuple(value.lower().strip("[]") for value in values)


def _proxies(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ipaddress.ip_network(value)
        except ValueError:
            raise ValueError(f"{value} is no address: write 10.0.0.5, or a network such as 10.0.0.0/8") from None
    return values


def _api_keys(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        parse_keys(value.get_secret_value().replace(",", "\n"))
    return value


_Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """Settings of one process; each is read from PIX2DSLR_ and its name in capitals.

    Attributes:
        host, port: where the server listens.
        device: `auto` takes CUDA where it works; `cuda` never becomes ready without it.
        devices: how many devices share the queue: the first so many GPUs. All where absent. On a CPU as many sessions
            share its threads, which gains nothing and serves to try it.
        threads: CPU threads that run the generator, each a batch of its own; 0 takes what the container may use.
        cuda_graphs: replay a recorded CUDA graph a batch size; batches then run one at a time.
        tensorrt_cache: folder for TensorRT's engines, which are used where it is given; the first start takes minutes.
        models: folder of ONNX generators, named CAMERA.onnx.
        verify_models: whether a generator's file must be listed with its SHA-256 in the folder's SHA256SUMS, as
            sha256sum writes it.
        camera: the generator that is used where a request names none.
        batch_sizes: sizes of batches in tiles, ascending from 1, such as [1,4,16]; found by measuring where absent. All
            are run once before the service is ready.
        max_queued_tiles: tiles that may be admitted at once; beyond it requests get 429. A client may have an equal
            part of them whatever the others have.
        max_body_bytes: largest request body.
        max_pixels: most pixels in a picture.
        max_frames: most frames or pages in a file; only the first is ever decoded.
        max_scans: most scans of a progressive JPEG.
        decode_workers: processes that read and decode clients' files, at least 2; 0 decodes in the service's own
            process, where a file that crashes a decoder ends the service. By the CPUs where absent.
        decode_timeout_s: seconds of CPU that decoding a file may take, beyond one a megapixel; reading its header a
            fifth.
        max_files: most pictures in one request, as files of a form or in a zip.
        max_unzipped_bytes: most bytes that a zip's files may have together once unzipped; one of them may have
            max_body_bytes.
        api_keys: keys that requests need, separated by commas, each NAME:KEY or NAME:sha256:DIGEST; logs may show
            the name. None, and no file of them, leaves the service open.
        api_keys_file: file of such keys, one a line; # begins a comment. It is read again within seconds where it
            changed, and a broken one leaves the keys as they were.
        rate_limit: pictures that a client may send a minute, all at once or spread; a client is a key, or without keys
            an address. 0 sets no limit.
        rate_limit_tiles: tiles that a client's pictures may have a minute, likewise; a megapixel has about 110, and a
            picture with more than the limit takes the whole minute. 0 sets no limit.
        client_concurrency: requests that a client may have under way, an open WS /live being one. 0 sets no limit.
        trusted_proxies: addresses or networks, separated by commas, whose X-Forwarded-For and X-Forwarded-Proto are
            believed.
        trusted_hosts: names, separated by commas, that the service answers for, such as photos.example.org or
            *.example.org. Where absent any, but on a loopback address without trusted proxies localhost and that
            address. Health is answered for any.
        metrics_port: a second port with /metrics and health alone; /metrics is then not on the first.
        metrics_host: where that port listens; as host where absent.
        docs: whether /docs and /openapi.json are there.
        max_connections: open connections, and an eighth of them for one address that is no trusted proxy; of more the
            longest idle ends, else the new one is refused. Fewer where the process may not open so many files.
        max_buffered_bytes: bytes of request bodies that may be in memory at once; beyond it requests get 503. The last
            eighth is for bodies of up to 1 MiB. A client may have as much as it leaves for others: up to half, a third
            where two send, and so on. An eighth as many besides are for files of zips once unzipped.
        max_picture_bytes: bytes that pictures under way and answers may take at once; others wait. What the memory of
            the container, or of the machine, leaves for them where absent.
        header_timeout_s: seconds in which a request's head has to come.
        body_timeout_s: seconds in each of which spans min_rate has to be kept by a body that comes; else it gets 408.
        send_timeout_s: the same for the client that reads an answer, and as much as lets it have all within 10 minutes;
            else the connection is ended.
        min_rate: bytes a second, on average over such a span. What would not be complete within 600 s has to come
            faster.
        cors_origins: origins, separated by commas, whose pages may use the service from a browser, such as
            https://example.org; * for any. None may by default.
        workers: how many pictures are decoded, blended or encoded at the same time; one client's are no more than it
            leaves free.
        batch_timeout_s: seconds that the device may take for a batch. One that takes longer, and 50 times what it
            should, makes the service neither alive nor ready.
        request_timeout_s: seconds that a picture may take before 504.
        keep_alive_s: seconds that an idle connection stays open. With less than a proxy or a client that waits for
            Retry-After keeps it, a request can meet its closing.
        drain_timeout_s: seconds that running requests get to finish after SIGTERM.
        log_level: of the service's own log.
        log_format: of its lines: json, text, or auto, which is text on a terminal and JSON elsewhere.
        slow_step_s: seconds of processor time that one step of the event loop may take before a warning names it; for
            tests. 0 looks at none.
        traces: otlp sends OpenTelemetry spans as the standard OTEL_ variables say; it needs the extra otel.
    """

    model_config = SettingsConfigDict(env_prefix="PIX2DSLR_", frozen=True, hide_input_in_errors=True)

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    device: Device = "auto"
    devices: Annotated[int, Field(ge=1, le=64)] | None = None
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    cuda_graphs: bool = False
    tensorrt_cache: Path | None = None
    models: Path = SHIPPED_MODELS
    verify_models: bool = True
    camera: str = "iphone"
    batch_sizes: Annotated[tuple[int, ...], AfterValidator(_ascending_from_1)] | None = None
    max_queued_tiles: Annotated[int, Field(ge=1)] = 16_384
    max_body_bytes: Annotated[int, Field(ge=1)] = 64 << 20
    max_pixels: Annotated[int, Field(ge=1)] = 100_000_000
    max_frames: Annotated[int, Field(ge=1)] = 1000
    max_scans: Annotated[int, Field(ge=1)] = 100
    decode_workers: Annotated[int, AfterValidator(_none_or_two)] | None = None
    decode_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    max_files: Annotated[int, Field(ge=1)] = 1000
    max_unzipped_bytes: Annotated[int, Field(ge=1)] = 1 << 30
    api_keys: Annotated[SecretStr | None, AfterValidator(_api_keys)] = None
    api_keys_file: Path | None = None
    rate_limit: Annotated[int, Field(ge=0)] = 0
    rate_limit_tiles: Annotated[int, Field(ge=0)] = 0
    client_concurrency: Annotated[int, Field(ge=0)] = 0
    trusted_proxies: Annotated[_Names, AfterValidator(_proxies)] = ()
    trusted_hosts: Annotated[_Names, AfterValidator(_hosts)] = ()
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    metrics_host: str | None = None
    docs: bool = True
    max_connections: Annotated[int, Field(ge=1)] = 4096
    max_buffered_bytes: Annotated[int, Field(ge=1)] = 1 << 30
    max_picture_bytes: Annotated[int, Field(ge=1)] | None = None
    header_timeout_s: Annotated[float, Field(gt=0)] = 20.0
    body_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    send_timeout_s: Annotated[float, Field(gt=0)] = 60.0
    min_rate: Annotated[int, Field(ge=0)] = 1000
    cors_origins: Annotated[_Names, AfterValidator(_origins)] = ()
    workers: Annotated[int, Field(ge=1)] = 64
    batch_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    request_timeout_s: Annotated[float, Field(gt=0)] = 300.0
    keep_alive_s: Annotated[int, Field(ge=1)] = 75
    drain_timeout_s: Annotated[float, Field(ge=0)] = 300.0
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Format = "auto"
    slow_step_s: Annotated[float, Field(ge=0)] = 0.0
    traces: Literal["off", "otlp"] = "off"
