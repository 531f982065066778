"""A stand-in for a decode worker that a file has taken over: it tries what that could, and tells what came of it."""

import json
import os
from pathlib import Path
from typing import Any, Final

MARK: Final = b"\xff\xd8\xffATTACK"
"""How a file begins that makes it try."""

_PROGRAM: Final = """
import ctypes, json, os, signal, socket, sys, threading, time
from pathlib import Path

def attempts(goal):
    service, libc = os.getppid(), ctypes.CDLL(None, use_errno=True)

    def called(result):
        if result == -1:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def threaded(work):
        got = []
        def go():
            try:
                got.append(work())
            except BaseException as error:
                got.append(error)
        thread = threading.Thread(target=go)
        thread.start()
        thread.join()
        if isinstance(got[0], BaseException):
            raise got[0]

    def peek(process):
        local, remote = ctypes.create_string_buffer(64), ctypes.c_void_p(goal.get("address", 4096))
        class Part(ctypes.Structure):
            _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
        mine, other = Part(ctypes.addressof(local), 64), Part(remote, 64)
        called(libc.process_vm_readv(process, ctypes.byref(mine), 1, ctypes.byref(other), 1, 0))

    def raised_limit():
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        os.open("/", os.O_RDONLY)

    def close_and_open():
        os.close(0)
        os.open("/dev/null", os.O_RDONLY)

    others = [each for each in goal["workers"] if each != os.getpid()][:1]
    yield "the service's environment", lambda: Path(f"/proc/{service}/environ").read_bytes()
    yield "the service's memory", lambda: open(f"/proc/{service}/mem", "rb")
    yield "the service's memory by a call", lambda: peek(service)
    yield "its own environment", lambda: Path("/proc/self/environ").read_bytes()
    yield "a secret among its variables", lambda: ["secret" in str(os.environ) or 1 / 0]
    yield "the file of keys", lambda: Path(goal["keys"]).read_bytes()
    yield "any file", lambda: Path("/etc/passwd").read_bytes()
    yield "any file, in a thread", lambda: threaded(lambda: Path("/etc/passwd").read_bytes())
    yield "any file, by a limit that is raised", raised_limit
    yield "any file, by a descriptor that is free again", close_and_open
    yield "a socket", socket.socket
    yield "a socket of datagrams", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    yield "a socket of this machine", lambda: socket.socket(socket.AF_UNIX)
    yield "a pair of sockets", socket.socketpair
    yield "a new file", lambda: open(goal["folder"] + "/new", "w")
    yield "a new folder", lambda: os.mkdir(goal["folder"] + "/made")
    yield "another name for a file", lambda: os.rename(goal["keys"], goal["folder"] + "/renamed")
    yield "a file's end", lambda: os.unlink(goal["keys"])
    yield "a shorter file", lambda: os.truncate(goal["keys"], 0)
    yield "another program", lambda: os.execv("/bin/true", ["true"])
    for name, process in [("the service", service), *(("a worker", each) for each in others)]:
        yield f"a signal to {name}", lambda process=process: os.kill(process, signal.SIGCONT)
        yield f"a look at {name}'s steps", lambda process=process: called(libc.ptrace(0x4206, process, 0, 0))
        yield f"{name}'s memory", lambda process=process: peek(process)

def read_header(data, limits):
    if not data.startswith(MARK):
        return real(data, limits)
    goal = json.loads(data[len(MARK):])
    if goal.get("does") == "sleeps":
        time.sleep(goal["seconds"])
    if goal.get("does") == "spins":
        until = time.process_time() + goal["seconds"]
        while time.process_time() < until:
            pass
    if goal.get("does") == "ends":
        os._exit(1)
    if goal.get("does") == "trickles":
        os.write(int(sys.argv[1]), (1 << 20).to_bytes(8, "big"))
        until = time.monotonic() + goal["seconds"]
        while time.monotonic() < until:
            os.write(int(sys.argv[1]), b" ")
            time.sleep(0.005)
    done = {}
    for name, attempt in attempts(goal) if "keys" in goal else ():
        if name not in goal.get("only", [name]):
            continue
        try:
            attempt()
            done[name] = "done"
        except BaseException as error:
            done[name] = f"{type(error).__name__}: {error}"
    raise codec.MalformedPicture(json.dumps(done))

if "service.decoding.worker" in sys.orig_argv:
    MARK = bytes.fromhex("MARK")
    from service import codec
    real, codec.read_header = codec.read_header, read_header
""".replace('fromhex("MARK")', f'fromhex("{MARK.hex()}")')


def write(folder: Path) -> dict[str, str]:
    """Write the stand-in, and return the variables by which the workers of a service become one."""
    (folder / "sitecustomize.py").write_text(_PROGRAM)
    return {"PYTHONPATH": os.pathsep.join((str(folder), str(Path(__file__).parents[1])))}


def file_that(does: str = "", /, **goal: Any) -> bytes:
    """A file that makes it do something."""
    return MARK + json.dumps({"does": does, **goal}).encode()
