"""schemathesis against a running server: what the OpenAPI document says is what is answered."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.onnx_files import write_generator

PROJECT: Final = Path(__file__).parents[2]
_LEFT_OUT: Final = (
    "positive_data_acceptance",  # no schema can say which bytes are a picture, or two of one size
    "negative_data_rejection",  # in schema_hooks as `invalid_is_refused`
)


def check_schema(url: str, folder: Path, *, seed: int, examples: int, seconds: int | None = None) -> str | None:
    """Try every operation with what its schema allows and forbids.

    Args:
        url: of the server.
        folder: where schemathesis may write.
        seed: the requests' own.
        examples: how many of an operation, beside those that each schema's limits give.
        seconds: go on for so long; None tries each once.

    Returns:
        What was found and how to send it again, in schemathesis's words; None where nothing was.
    """
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json"),
        *("--seed", str(seed), "--max-examples", str(examples), "--exclude-checks", ",".join(_LEFT_OUT)),
        *("--continue-on-failure", "--warnings", "off", "--no-color", "--request-timeout", "60"),
        *(() if seconds is None else ("--max-time", str(seconds))),
    ]
    environment = {"SCHEMATHESIS_HOOKS": "tests.fuzz.schema_hooks", "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        timeout=(seconds or 0) + 300,
        check=False,
    )
    return None if done.returncode == 0 else (done.stdout + done.stderr).decode(errors="replace")


@contextmanager
def running_server(folder: Path) -> Iterator[str]:
    """Run the service on a generator that changes nothing, with its log in `folder`; give its address.

    Raises:
        RuntimeError: it ended, or was not ready within a minute.
    """
    write_generator(folder / "iphone.onnx")
    log = folder / "server.log"
    settings = {"PIX2DSLR_MODELS": str(folder), "PIX2DSLR_LOG_FORMAT": "text", "PYTHONPATH": str(PROJECT)}
    with log.open("w") as file:
        server = subprocess.Popen(
            [str(Path(sys.executable).with_name("pix2dslr")), "serve", "--port", "0"],
            stderr=file,
            env=os.environ | settings,
        )
    try:
        for _ in range(600):
            said = log.read_text()
            address = re.search(r"listening on (http://\S+)", said)
            if address and "] ready" in said:
                yield address.group(1)
                return
            if server.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"the server did not become ready: {log.read_text()}")
    finally:
        server.terminate()
        server.wait(60)
