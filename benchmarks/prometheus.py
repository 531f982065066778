"""A real Prometheus on loopback for a while, with this project's configuration and rules."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml

DEPLOY: Final = Path(__file__).parents[1] / "deploy" / "prometheus"
HOW: Final = "no Prometheus was found: install Debian's or Ubuntu's package (apt-get install prometheus)"
_START_WITHIN_S: Final = 60


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that runs.

    Attributes:
        url: its address.
    """

    url: str

    def instant(self, query: str, at: float | None = None) -> list[dict[str, Any]]:
        """Return a query's series at a time (now where absent), each with `metric` and `value`.

        Raises:
            RuntimeError: Prometheus can't run the query; the reason is its own.
        """
        parameters = {"query": query} | ({} if at is None else {"time": str(at)})
        return self._ask("query", parameters)

    def between(self, query: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """Return a query's series from start to end (seconds since the epoch), each with `metric` and `values`.

        Raises:
            RuntimeError: Prometheus can't run the query; the reason is its own.
        """
        return self._ask("query_range", {"query": query, "start": str(start), "end": str(end), "step": str(step)})

    def _ask(self, what: str, parameters: dict[str, str]) -> list[dict[str, Any]]:
        answer = httpx.post(f"{self.url}/api/v1/{what}", data=parameters, timeout=60, trust_env=False).json()
        if answer["status"] != "success":
            raise RuntimeError(f"{parameters['query']}: {answer.get('error')}")
        data = answer["data"]
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        series: list[dict[str, Any]] = data["result"]
        return series


def find() -> str | None:
    """Return the path of a Prometheus, None where there is none."""
    return shutil.which("prometheus")


def configuration(targets: Sequence[str], interval: str) -> str:
    """Return the shipped configuration as YAML, but for these targets (`host:port`) and this interval."""
    told = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    told["global"] = {"scrape_interval": interval, "evaluation_interval": interval}
    told["rule_files"] = [str(DEPLOY / name) for name in told["rule_files"]]
    (job,) = told["scrape_configs"]
    del job["dns_sd_configs"]
    job["static_configs"] = [{"targets": list(targets)}]
    return yaml.safe_dump(told)


@contextmanager
def running_prometheus(targets: Sequence[str], folder: Path, interval: str = "1s") -> Iterator[Prometheus]:
    """Start a Prometheus on a free port, wait until it answers, and stop it again.

    Args:
        targets: what it scrapes, as `host:port`.
        folder: where it keeps its configuration and data.
        interval: between scrapes, and between evaluations of rules.

    Raises:
        FileNotFoundError: there is no Prometheus here.
        RuntimeError: it ended, or did not answer within a minute; its log is told.
    """
    program = find()
    if program is None:
        raise FileNotFoundError(HOW)
    file = folder / "prometheus.yml"
    file.write_text(configuration(targets, interval))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    log = folder / "prometheus.log"
    command = [program, f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}"]
    command += [f"--web.listen-address={address}", "--log.level=warn"]
    with log.open("wb") as told, subprocess.Popen(command, stdout=told, stderr=told, cwd=folder) as process:
        try:
            _wait_for(f"http://{address}/-/ready", process, log)
            yield Prometheus(f"http://{address}")
        finally:
            process.terminate()


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _START_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"Prometheus did not start: {log.read_text(errors='replace')}")
