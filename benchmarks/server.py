"""A real server on loopback for the time of a benchmark."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running_server() -> Iterator[str]:
    """Start `pix2dslr serve` on a free port, give its address once it is ready, and stop it again."""
    command = [str(Path(sys.executable).with_name("pix2dslr")), "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = ""
        for line in process.stderr:
            if "listening on " in line:
                url = line.partition("listening on ")[2].split()[0]
            if line.rstrip().endswith("] ready"):
                break
        try:
            yield url
        finally:
            process.terminate()
