"""A reverse proxy as simple as they come: a path prefix before the service, and a Host of its own."""

import contextlib
import re
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit


class PrefixProxy:
    """Serves `http://127.0.0.1:PORT/PREFIX/…` from a service's `/…`, one request a connection.

    Host becomes the service's own, as nginx has it by default, and X-Forwarded-Host says what it was.
    """

    def __init__(self, upstream: str, prefix: str = "/photos/studio", *, websockets: bool = True) -> None:
        self.turn_to(upstream)
        self._prefix = prefix.encode()
        self._websockets = websockets
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}{prefix}/"
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept)

    def turn_to(self, upstream: str) -> None:
        """Serve another service from now on."""
        parts = urlsplit(upstream)
        assert parts.hostname is not None
        assert parts.port is not None
        self._upstream = parts.hostname, parts.port

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # close alone would leave accept waiting
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        workers = []
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                break
            worker = threading.Thread(target=self._serve, args=(client,), daemon=True)
            worker.start()
            workers.append(worker)

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                part = client.recv(65_536)
                if not part:
                    return
                head += part
            head, _, body = head.partition(b"\r\n\r\n")
            upgrade = re.search(rb"(?i)\r\nupgrade: websocket", head) is not None
            method, path, version = head.split(b"\r\n")[0].split(b" ")
            if not path.startswith(self._prefix + b"/") or (upgrade and not self._websockets):
                client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            host = re.search(rb"(?i)\r\nhost: ([^\r]*)", head)
            assert host is not None
            fields = re.sub(rb"(?i)\r\n(host|connection): [^\r]*", b"", head.partition(b"\r\n")[2].join([b"\r\n", b""]))
            new_host = f"{self._upstream[0]}:{self._upstream[1]}".encode()
            lines = [
                b" ".join([method, path.removeprefix(self._prefix), version]),
                b"Host: " + new_host,
                b"X-Forwarded-Host: " + host[1],
                b"Connection: " + (b"Upgrade" if upgrade else b"close"),
            ]
            with socket.create_connection(self._upstream) as server:
                self._open |= {client, server}
                server.sendall(b"\r\n".join(lines) + fields + b"\r\n\r\n" + body)
                back = threading.Thread(target=_pipe, args=(server, client), daemon=True)
                back.start()
                _pipe(client, server)
                back.join()
                self._open -= {client, server}


def _pipe(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
