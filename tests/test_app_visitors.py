"""Visitors who come at once, or ask for nothing."""

import asyncio
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import uvicorn
from streamlit.runtime.uploaded_file_manager import UploadedFileRec

from app import serving

MAIN = Path(__file__).parents[1] / "app/main.py"
IMPORTS = f"""
import ast, sys
tree = ast.parse(open({str(MAIN)!r}).read())
tree.body = [line for line in tree.body if isinstance(line, (ast.Import, ast.ImportFrom))]
exec(compile(tree, "main", "exec"))
assert "pandas" in sys.modules
assert "plotly" not in sys.modules or list(sys.modules).index("pandas") < list(sys.modules).index("plotly")
"""
"""What each visitor's thread goes through first, in a process that has imported nothing before."""


def test_no_visitor_meets_pandas_half_imported():
    """Plotly takes it out of sys.modules, also while another thread imports it: `pandas` has no attribute `Series`."""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", IMPORTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def uploaded(held):
    return {session: [*files] for session, files in held.file_storage.items() if files}


def test_uploads_are_bounded_and_the_oldest_go(monkeypatch):
    monkeypatch.setattr(serving, "MOST_BYTES", 350)
    held = serving.Uploads("/upload")

    def send(session, name):
        held.add_file(session, UploadedFileRec(name, "a.png", "image/png", bytes(100)))

    for name in "abc":
        send("one", name)
    assert uploaded(held) == {"one": ["b", "c"]}
    send("two", "d")
    send("one", "c")
    assert uploaded(held) == {"two": ["d"], "one": ["b", "c"]}
    send("three", "e")
    assert uploaded(held) == {"one": ["b", "c"], "three": ["e"]}
    assert [file.file_id for file in held.get_files("one", ["b", "c", "a"])] == ["b", "c"]
    for name in "fg":
        send("two", name)
    assert uploaded(held) == {"three": ["e"], "two": ["f", "g"]}


def test_the_server_bounds_them(monkeypatch):
    begun = []
    monkeypatch.setattr(serving.server, "MemoryUploadedFileManager", None)
    monkeypatch.setattr(serving.cli, "main", lambda **_: begun.append(serving.server.MemoryUploadedFileManager))
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", "")
    serving.main()
    assert begun == [serving.Uploads]


async def plain(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await asyncio.sleep(0.5 if scope["path"] == "/slow" else 0.0)
    await send({"type": "http.response.body", "body": b"ok"})


async def answers(sent):
    """What a server that waits a fifth of a second for a request sends back, until it closes the connection."""
    config = uvicorn.Config(plain, port=0, http=serving.Impatient, lifespan="off", log_level="critical")
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve())
    while not running.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*running.servers[0].sockets[0].getsockname())
    try:
        for part in sent:
            writer.write(part)
            await asyncio.sleep(0.1)
        return await asyncio.wait_for(reader.read(), 120)
    finally:
        writer.close()
        running.should_exit = True
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("sent", [[b""], [b"GET / HT"], [b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n", b"Z: y\r\n"]])
def test_a_connection_that_asks_for_nothing_whole_is_closed(sent, monkeypatch):
    monkeypatch.setattr(serving, "PATIENCE", 0.2)
    assert b"200 OK" not in asyncio.run(answers(sent))


@pytest.mark.parametrize("path", [b"/", b"/slow"])
def test_what_is_asked_for_is_answered_and_half_a_question_after_it_closes(path, monkeypatch):
    monkeypatch.setattr(serving, "PATIENCE", 0.2)
    found = asyncio.run(answers([b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HT"]))
    assert found.count(b"200 OK") == 1
    assert found.endswith(b"ok")
