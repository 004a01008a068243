"""Cells on a Ray cluster: actors that keep what they loaded, and a driver that alone writes rows.

Needs the `ray` extra (`pip install "aft-lens[ray]"`), and the package and its data at the same paths on every machine.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayActorError

if TYPE_CHECKING:
    from analyses.cells import Cell, Crew, Queue

TRIES = 3
"""Times that a cell is sent out before the workers that it takes with it are its own fault."""


class _Worker:
    """Does one piece of work after another; what a piece keeps in its module (a model) is there for the next."""

    def do(self, work: Callable[[], Any]) -> tuple[Any, str]:
        """The row, or the error that it raised."""
        try:
            return work(), ""
        except Exception as error:  # whatever work raises is reported with its name
            return None, f"{type(error).__name__}: {error}"


def share(queue: "Queue", crew: "Crew") -> None:
    """Keep actors busy until nothing may start any more or the time is over; none is left behind.

    Raises ValueError where there is no cluster at the address, or it has not as many processors and GPUs as one worker
    needs.
    """
    own = not ray.is_initialized()
    if own:
        try:
            ray.init(address=crew.ray, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"ray must be the address of a cluster, got {crew.ray!r} ({error}); start one with `ray start --head`, "
                "or give local"
            ) from error
    try:
        _share(queue, crew)
    finally:
        if own:
            ray.shutdown()


def _share(queue: "Queue", crew: "Crew") -> None:
    """As `share`, connected."""
    there, gpus = ray.cluster_resources(), crew.gpus
    if there.get("CPU", 0) < 1 or there.get("GPU", 0) < gpus:
        raise ValueError(f"the cluster has {there.get('CPU', 0):g} processors and {there.get('GPU', 0):g} GPUs, a "
                         f"worker needs 1 and {gpus:g}; give fewer --gpus or add machines")  # fmt: skip
    room = int(there["CPU"]) if not gpus else min(int(there["CPU"]), int(there["GPU"] / gpus))
    count = min(crew.workers or room, room, len(queue.waiting))
    kind = ray.remote(num_cpus=1, num_gpus=gpus)(_Worker)
    actors: list[Any] = []
    idle: list[Any] = []
    busy: dict[Any, tuple[Any, Cell]] = {}
    sent: Counter[str] = Counter()
    served: Counter[Any] = Counter()
    try:
        while True:
            while (idle or len(busy) < count) and (cell := queue.take()) is not None:
                if not idle:
                    actors.append(kind.remote())
                    idle.append(actors[-1])
                actor = idle.pop()
                sent[cell.name] += 1
                busy[actor.do.remote(cell.work)] = actor, cell
            if not busy:
                return
            left = max(0.0, min(queue.end - time.monotonic(), 3600.0))
            ready, _ = ray.wait(list(busy), timeout=left)
            if not ready and time.monotonic() >= queue.end:
                queue.outcome.left += [cell.name for _, cell in busy.values()]
                return
            for task in ready:
                actor, cell = busy.pop(task)
                try:
                    row, error = ray.get(task)
                    served[actor] += 1
                    if served[actor] == crew.life:
                        ray.kill(actor)
                    else:
                        idle.append(actor)
                except RayActorError as lost:  # its process or its machine is gone
                    if sent[cell.name] < TRIES:
                        queue.waiting.insert(0, cell)
                        continue
                    row, error = None, f"its worker was lost {TRIES} times ({str(lost).splitlines()[0]})"
                queue.finish(cell, row, error)
    finally:
        for actor in actors:
            ray.kill(actor)
