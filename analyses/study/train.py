"""Training what is not trained yet, several runs at a time, within a budget of seconds."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from multiprocessing.pool import AsyncResult
from multiprocessing.queues import SimpleQueue
from pathlib import Path

from analyses.provenance import command_line, visible_gpu
from analyses.study.plan import Study, Task, tasks
from analyses.study.record import Run
from analyses.study.result import NAME, PaperClaims
from analyses.study.worker import execute

RESERVE = 1.15
"""Share of its expected time that a run must have left to be started."""
POLL = 0.2
"""Seconds between two looks at the running ones."""


def run(study: Study, *, workers: int, budget: float, out: Path) -> None:
    """Train the study's unfinished runs until all are there or the budget is used, and write claims.json.

    Finished runs are never repeated. A run cut off by the budget goes on after its last finished epoch next time.
    Raises ValueError if the folder of the runs holds another study's, or if a run failed.
    """
    begun = time.monotonic()
    end = begun + budget if budget else float("inf")
    todo = tasks(study)
    finished = {task.name: found for task in todo if (found := _finished(task)) is not None}
    study.runs.mkdir(parents=True, exist_ok=True)
    failed: dict[str, str] = {}
    waiting = [task for task in todo if task.name not in finished]
    print(f"{len(finished)} of {len(todo)} runs finished before; {workers or 1} at a time", flush=True)

    def done(task: Task, outcome: Run | BaseException) -> None:
        clock = f"{time.monotonic() - begun:6.0f} s"
        if isinstance(outcome, BaseException):
            failed[task.name] = f"{type(outcome).__name__}: {outcome}"
            print(f"{clock}  {task.name}: FAILED, {failed[task.name]}", flush=True)
            return
        finished[task.name] = outcome
        _write(study, todo, finished, workers, out)
        print(
            f"{clock}  {task.name}: {outcome.accuracy:.2f} %, {outcome.seconds:.0f} s, "
            f"{outcome.images_per_second:,.0f} images/s ({len(finished)}/{len(todo)})",
            flush=True,
        )

    if workers:
        _parallel(waiting, finished, failed, workers, end, done)
    else:
        for task in waiting:
            if not _fits(task, finished, end - time.monotonic()):
                continue
            try:
                done(task, execute(task))
            except Exception as error:  # one run that fails must not keep the others from training
                done(task, error)
    if finished:
        print(_write(study, todo, finished, workers, out).markdown())
    missing = [task.name for task in todo if task.name not in finished and task.name not in failed]
    if missing:
        print(f"{len(missing)} runs left ({', '.join(missing)}); the same command goes on with them")
    if failed:
        raise ValueError("runs failed:\n  " + "\n  ".join(f"{name}: {why}" for name, why in failed.items()))


def _parallel(
    waiting: list[Task],
    finished: Mapping[str, Run],
    failed: dict[str, str],
    workers: int,
    end: float,
    done: Callable[[Task, Run | BaseException], None],
) -> None:
    """Keep `workers` processes busy with the first runs that may start; end them when the time is over."""
    waiting = list(waiting)
    running: dict[str, tuple[Task, AsyncResult]] = {}
    context = multiprocessing.get_context("spawn")
    gpus = context.SimpleQueue()
    for number in range(workers):
        gpus.put(visible_gpu(number))
    with context.Pool(workers, take_gpu, (gpus,)) as pool:  # leaving the block terminates the processes
        while True:
            for name, (task, result) in list(running.items()):
                if result.ready():
                    del running[name]
                    try:
                        done(task, result.get())
                    except Exception as error:  # as above: whatever a run raised is reported with its name
                        done(task, error)
            left = end - time.monotonic()
            if left <= 0:
                return
            for task in list(waiting):
                if len(running) == workers:
                    break
                if _may_start(task, finished) and _fits(task, finished, left):
                    waiting.remove(task)
                    running[task.name] = task, pool.apply_async(execute, (task,))
            if not running:
                pool.close()
                pool.join()
                return
            time.sleep(POLL)


def take_gpu(gpus: SimpleQueue) -> None:
    """Show a new worker process one GPU alone, before anything asks for it."""
    gpu = gpus.get()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu


def _may_start(task: Task, finished: Mapping[str, Run]) -> bool:
    """Whether the run that it starts from is there."""
    return task.start is None or task.start.name in finished


def _fits(task: Task, finished: Mapping[str, Run], left: float) -> bool:
    """Whether a run can be expected to end in the seconds left, judged by the slowest like it."""
    name = task.configuration.name
    fresh = [run for run in finished.values() if not run.resumed]
    alike = [run for run in fresh if run.configuration == name] or fresh
    paces = [run.seconds / run.epochs for run in alike]
    return left > RESERVE * max(paces, default=0.0) * task.recipe.trainer.epochs and _may_start(task, finished)


def _finished(task: Task) -> Run | None:
    """A run that has finished; ValueError if the folder has one of another study under its name."""
    kept = task.store.get(task.name, task.fingerprint)
    if kept is not None:
        return Run.read(kept)
    path = task.store.path(task.name)
    if not path.is_file():
        return None
    other = json.loads(path.read_text(encoding="utf-8"))
    content = other.get("content", other)  # versions before fingerprints wrote the run's record alone
    different = sorted(key for key, value in task.identity().items() if content.get(key) != value)
    if different:
        raise ValueError(f"{path} is of a run with other {', '.join(different)}; choose another --study.runs")
    raise ValueError(
        f"{path} has no fingerprint of this run: it was written by another version; choose another --study.runs, or "
        "remove the file to train the run anew"
    )


def _write(study: Study, todo: Sequence[Task], finished: Mapping[str, Run], workers: int, out: Path) -> PaperClaims:
    """Write claims.json from every finished run, in the study's order."""
    runs = [finished[task.name] for task in todo if task.name in finished]
    result = PaperClaims(
        command=command_line(),
        hardware=sorted({run.hardware for run in runs}),
        versions=runs[0].versions,
        workers=workers,
        study={key: value for key, value in asdict(study).items() if key not in ("runs", "accelerator")},
        missing=[task.name for task in todo if task.name not in finished],
        runs=runs,
    )
    result.write_record(out / NAME)
    return result
