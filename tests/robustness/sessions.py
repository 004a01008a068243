"""Many visitors of the app at once, over its own protocol: what they are answered, how soon, and the server's memory.

Each visitor goes over pages, models, heads, images and pruning ladders at random, a step after the other's answer.
"""

import os
import random
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from processes import memory
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import ClientConnection, connect

from aft_lens.checkpoint import SHIPPED
from app import serve

PATIENCE = 300.0
"""Seconds after which an answer counts as none."""
MODELS = ("digits-conv", "digits-entropy", "digits-single")
DECODERS = ("digits-pixels-aft-local", "digits-pixels-transformer", "kjv-text")
ANALYSES = ("locality", "match", "learned", "evaluate", "field", "qk", "attribution", "transfer", "nothing")


class Server:
    """The app as `aft-lens app` serves it, over the digits checkpoints."""

    def __enter__(self) -> "Server":
        self.port = serve.free_port()
        self.process = serve.start([SHIPPED], self.port)
        while self.health() != 200:
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        serve.stop(self.process)

    def health(self) -> int:
        """Status of the server's own check, 0 where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://localhost:{self.port}/_stcore/health", timeout=10) as found:
                return int(found.status)
        except OSError:
            return 0

    def memory(self) -> int:
        """MiB of the server and all that it has started, shared pages counted once."""
        return int(memory(self.process.pid) * 1e6) // 2**20

    def threads(self) -> int:
        """The server's threads."""
        return int(self._status("Threads"))

    def handles(self) -> int:
        """The server's open files and connections."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def _status(self, key: str) -> str:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(line.split()[1] for line in lines if line.startswith(f"{key}:"))

    def visit(self) -> ClientConnection:
        """A visitor's connection, with the first page drawn."""
        return connect(f"ws://localhost:{self.port}/_stcore/stream", subprotocols=["streamlit"], max_size=None,
                       open_timeout=PATIENCE, ping_timeout=None)  # fmt: skip


def ask(visitor: ClientConnection, page: str, **query: object) -> None:
    """Ask for a page as a browser does that follows a link."""
    message = BackMsg()
    message.rerun_script.query_string = urlencode(query)
    message.rerun_script.page_name = page
    visitor.send(message.SerializeToString())


def answer(visitor: ClientConnection) -> tuple[list[str], set[str]]:
    """Wait for the page asked for: what it has of errors, and its elements. Raises TimeoutError after `PATIENCE`."""
    errors, elements, end = [], set(), time.monotonic() + PATIENCE
    while True:
        message = ForwardMsg.FromString(visitor.recv(timeout=max(0.0, end - time.monotonic())))
        kind = message.WhichOneof("type")
        if kind == "delta" and message.delta.WhichOneof("type") == "new_element":
            element = message.delta.new_element
            elements.add(element.WhichOneof("type"))
            if element.WhichOneof("type") == "exception":
                errors.append(element.exception.message)
            elif element.WhichOneof("type") == "alert" and element.alert.format == element.alert.ERROR:
                errors.append(element.alert.body)
        elif kind == "page_not_found":
            errors.append("page not found")
        elif kind == "script_finished":
            if message.script_finished == ForwardMsg.FINISHED_EARLY_FOR_RERUN:
                continue
            return errors, elements


def step(draw: random.Random) -> tuple[str, dict[str, object]]:
    """A page and its parameters."""
    pair = {"a": draw.choice(MODELS), "b": draw.choice([*MODELS, "digits-vit"])}
    offset = f"{draw.randint(-3, 4)}.{draw.randint(-3, 3)}"
    text = {"da": draw.choice(DECODERS), "db": draw.choice(DECODERS)}
    cell = {"layer": draw.randrange(4), "head": draw.randrange(9), "offset": offset}
    return draw.choice(
        [
            ("", pair),
            ("compare", {**pair, **cell, "scale": draw.choice(["own", "log", "rank", "shared", "loud"])}),
            ("keys", {**pair, **cell, "image": draw.randrange(400)}),
            ("attention", {**pair, "target": draw.choice(["class", "3.4", "99.99"]), "image": draw.randrange(300)}),
            ("decoders", {**text, "given": draw.randint(0, 90), "seed": draw.randrange(9), "layer": draw.randrange(4)}),
            ("knockout", {**pair, **cell}),
            ("pruning", {**pair, "keep": draw.randint(0, 5), "by": draw.choice(["magnitude", "random"])}),
            ("training", {"runs": pair["a"]}),
            ("decoders", {"da": draw.choice(DECODERS), "given": draw.choice([0, 50]), "seed": draw.randrange(3)}),
            ("analyses", {**pair, "analysis": draw.choice(ANALYSES)}),
        ]
    )


def attack(sessions: int, steps: int, seed: int = 0) -> dict[str, Any]:
    """So many visitors at once, so many steps each: errors, seconds by step, and the server's memory."""
    errors: list[str] = []
    seconds: list[float] = []
    peak, done = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(2.0):  # a look reads every page table
            peak = max(peak, server.memory())

    def one(number: int) -> None:
        draw = random.Random(seed * 1000 + number)
        try:
            for _ in range(steps):
                page, query = step(draw)
                begun = time.monotonic()
                with server.visit() as visitor:  # a visit each: within one, widgets keep what they were set to
                    ask(visitor, page, **query)
                    errors.extend(f"{page}: {said}" for said in answer(visitor)[0])
                    seconds.append(time.monotonic() - begun)
        except Exception as error:  # counted, whatever it is
            errors.append(f"{type(error).__name__}: {error}")

    with Server() as server:
        before = server.memory()
        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(sessions) as pool:
            list(pool.map(one, range(sessions)))
        done.set()
        watcher.join()
        after, threads = server.memory(), server.threads()
    for said in sorted(set(errors)):
        print(f"sessions: {said}")
    seconds.sort()
    found = {"steps": len(seconds), "error": len(errors), "MiB before": before, "MiB at most": peak, "MiB after": after}
    found |= {"threads after": threads, "ms median": round(1000 * seconds[len(seconds) // 2])}
    return found | {"ms at most": round(1000 * seconds[-1])}


def half_open(count: int) -> dict[str, int]:
    """So many connections that ask half a question and stay: is the server there, and are they closed in the end?"""
    with Server() as server:
        before, held = server.handles(), []
        for _ in range(count):
            held.append(socket.create_connection(("localhost", server.port)))
            held[-1].sendall(b"GET / HTTP/1.1\r\nHost: loc")
        answered = server.health() == 200
        at_most = server.handles() - before
        end = time.monotonic() + 240
        while server.handles() - before > 2 and time.monotonic() < end:
            time.sleep(0.5)
        left = max(0, server.handles() - before - 2)
        for each in held:
            each.close()
    return {"held": at_most, "unanswered": int(not answered), "left open": left}


def prunes(count: int = 6) -> dict[str, Any]:
    """The server's memory after prunes one after the other, each to its end: it must not grow with their number."""
    found = []
    errors: list[str] = []
    with Server() as server:
        for keep in range(count):
            with server.visit() as visitor:
                end, elements = time.monotonic() + PATIENCE, set[str]()
                while "metric" not in elements:  # the prune goes on while its visitor is there
                    if time.monotonic() > end:
                        raise TimeoutError(f"pruning to k = {keep} has not ended after {PATIENCE} s")
                    ask(visitor, "pruning", a="digits-conv", keep=keep, by="taylor")
                    said, elements = answer(visitor)
                    errors += said
            found.append(server.memory())
    return {"error": len(errors), "MiB after the first": found[0], "MiB after the last": found[-1]}
