"""`aft-lens app`: serve the Streamlit app over folders of checkpoints and runs."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import TypeVar

from analyses.command import run_module
from app.limits import MAX_BYTES
from app.places import DATA_VARIABLE, JOBS_VARIABLE, ROOTS_VARIABLE, WRITE_VARIABLE

T = TypeVar("T")
MAIN = Path(__file__).with_name("main.py")
LOCAL = ("localhost", "127.0.0.1", "[::1]", "::1")
"""Names of this machine for itself."""
_SETTINGS: Mapping[str, str] = {
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "server.maxUploadSize": str(MAX_BYTES // 2**20),
    "browser.gatherUsageStats": "false",
    "runner.magicEnabled": "false",
    "client.toolbarMode": "minimal",
    "client.showErrorDetails": "none",  # a traceback names files and versions; the server's own log has it
    "client.showErrorLinks": "false",  # they lead to search engines with the error's text
    "server.enableCORS": "true",
    "server.enableXsrfProtection": "true",
    "server.enableStaticServing": "false",
    "server.disconnectedSessionTTL": "30",
    "theme.light.primaryColor": "#2f6db3",
    "theme.light.textColor": "#1f2933",
    "theme.light.backgroundColor": "#ffffff",
    "theme.light.secondaryBackgroundColor": "#f3f5f7",
    "theme.dark.primaryColor": "#6aa9e6",
    "theme.dark.textColor": "#e8ecf0",
    "theme.dark.backgroundColor": "#14181d",
    "theme.dark.secondaryBackgroundColor": "#20262d",
}


def command(
    root: list[Path] | Path | None = None,
    port: int = 8501,
    address: str = "localhost",
    hosts: list[str] | str | None = None,
    data: list[Path] | Path | None = None,
    jobs: Path | None = None,
    train: bool = True,
) -> None:
    """Serve the app until it is interrupted. Raises ValueError on a missing root or a port in use.

    Args:
        root: Folder searched for checkpoints and runs, or several as '[a,b]'; checkpoints/ and runs/ if left out.
        port: Port to serve on; 0 takes a free one.
        address: Address to listen on; 0.0.0.0 serves the network.
        hosts: Name that browsers may ask for it by, beside this machine's own, e.g. a proxy's; or several.
        data: Folder of image files it may show beside the roots, where checkpoints were trained on folder:PATH; or
            several.
        jobs: Folder that results of jobs are kept in, to be found again; a folder of the user's cache if left out.
        train: Whether pages may start and stop runs, where the app is asked for by this machine's own names alone.
    """
    if find_spec("streamlit") is None:
        raise ModuleNotFoundError("No module named 'streamlit'", name="streamlit")
    roots, names, folders = _several(root), _several(hosts), _several(data)
    missing = [str(path) for path in (*(roots or []), *(folders or [])) if not path.is_dir()]
    if missing:
        raise ValueError(
            f"root and data must be existing folders, got {', '.join(missing)}; `aft-lens list` shows checkpoints"
        )
    if not 0 <= port < 2**16:
        raise ValueError(f"port must be 0 to {2**16 - 1}, got {port}")
    port = port or free_port()
    if taken(address, port):
        raise ValueError(f"port {port} is in use; choose another with --port, or --port 0 for a free one")
    print(f"AFT Lens is at {url(address, port)}  (Ctrl-C stops it)", flush=True)
    write = train and address in LOCAL and not names
    process = start(roots, port, address, hosts=names, data=folders, jobs=jobs, write=write)
    before = signal.signal(signal.SIGTERM, _end)
    try:
        if status := process.wait():
            raise ValueError(f"the server ended with status {status}; its last lines above say why")
    except KeyboardInterrupt:
        print("stopped", flush=True)
    finally:
        stop(process)
        signal.signal(signal.SIGTERM, before)


def _several(given: list[T] | T | None) -> list[T] | None:
    """One or several as several."""
    return given if given is None or isinstance(given, list) else [given]


def _end(number: int, frame: FrameType | None) -> None:
    """Turn SIGTERM into an exit that stops the server too."""
    raise SystemExit(128 + number)


def start(
    root: list[Path] | None,
    port: int,
    address: str = "localhost",
    *,
    hosts: list[str] | None = None,
    data: list[Path] | None = None,
    jobs: Path | None = None,
    write: bool = False,
    quiet: bool = True,
) -> subprocess.Popen[bytes]:
    """Start the server as a child process; `quiet` drops its standard output, never its errors."""
    environment = dict(os.environ)
    for variable, folders in ((ROOTS_VARIABLE, root), (DATA_VARIABLE, data)):
        if folders:
            environment[variable] = json.dumps([str(path.resolve()) for path in folders])
    if jobs is not None:
        environment[JOBS_VARIABLE] = str(jobs.resolve())
    environment[WRITE_VARIABLE] = "1" if write else "0"
    flags = [f"--{key}={value}" for key, value in _SETTINGS.items()]
    # -P: a user's app.py or analyses.py where the command runs is no part of the app.
    flags += [f"--server.allowedHosts={name}" for name in (*own_names(address), *(hosts or []))]
    call = [sys.executable, "-P", "-m", "app.server", str(os.getpid()), "run", str(MAIN), *flags]
    call += [f"--server.port={port}", f"--server.address={address}"]
    return subprocess.Popen(call, env=environment, stdout=subprocess.DEVNULL if quiet else None)


def own_names(address: str) -> list[str]:
    """Names that a page may have asked for this server by; any other is a foreign page's that was pointed here."""
    names = list(LOCAL)
    if address not in LOCAL:
        own = [socket.gethostname(), socket.getfqdn()]
        with suppress(OSError):  # a machine whose name is not in its own tables
            own += [str(found[4][0]) for found in socket.getaddrinfo(socket.gethostname(), None)]
        names += own if address in ("0.0.0.0", "::") else [*own, address]
    return list(dict.fromkeys(names))


def stop(process: subprocess.Popen[bytes], patience: float = 5.0) -> None:
    """End a server: ask, wait `patience` seconds, then kill."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def url(address: str, port: int) -> str:
    """The address to open in a browser."""
    return f"http://{'localhost' if address == '0.0.0.0' else address}:{port}"


def free_port() -> int:
    """A port that no one listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def taken(address: str, port: int) -> bool:
    """Whether someone already answers on the port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("localhost" if address == "0.0.0.0" else address, port)) == 0


if __name__ == "__main__":
    run_module("app.serve", command)
