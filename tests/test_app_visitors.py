"""Visitors who ask for nothing, or leave while a job of theirs runs."""

import asyncio
from contextlib import suppress

import pytest
import uvicorn
from streamlit.runtime.scriptrunner import StopException

from app import loaders, server


async def plain(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await asyncio.sleep(0.5 if scope["path"] == "/slow" else 0.0)
    await send({"type": "http.response.body", "body": b"ok"})


async def answers(sent):
    """What a server that waits a fifth of a second for a request sends back, until it closes the connection."""
    config = uvicorn.Config(plain, port=0, http=server.Impatient, lifespan="off", log_level="critical")
    serving = uvicorn.Server(config)
    task = asyncio.create_task(serving.serve())
    while not serving.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*serving.servers[0].sockets[0].getsockname())
    try:
        for part in sent:
            writer.write(part)
            await asyncio.sleep(0.1)
        return await asyncio.wait_for(reader.read(), 3)
    finally:
        writer.close()
        serving.should_exit = True
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("sent", [[b""], [b"GET / HT"], [b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n", b"Z: y\r\n"]])
def test_a_connection_that_asks_for_nothing_whole_is_closed(sent, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.2)
    assert b"200 OK" not in asyncio.run(answers(sent))


@pytest.mark.parametrize("path", [b"/", b"/slow"])
def test_what_is_asked_for_is_answered_and_half_a_question_after_it_closes(path, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.2)
    found = asyncio.run(answers([b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"GET / HT"]))
    assert found.count(b"200 OK") == 1
    assert found.endswith(b"ok")


def test_a_job_ends_when_its_visitor_has_left(monkeypatch):
    class Visit:
        session_id = "one"

    class Runtime:
        active = True

        def is_active_session(self, number):
            return number == "one" and self.active

    there = Runtime()
    assert [*loaders.Attended("abc")] == [*"abc"]
    monkeypatch.setattr(loaders, "get_script_run_ctx", lambda suppress_warning: Visit)
    monkeypatch.setattr(loaders.runtime, "exists", lambda: True)
    monkeypatch.setattr(loaders.runtime, "get_instance", lambda: there)
    items = iter(loaders.Attended("abc"))
    assert next(items) == "a"
    there.active = False
    with pytest.raises(StopException):
        next(items)
