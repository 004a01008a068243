"""What the app costs a visitor, measured in a browser: `python tests/measure_app.py`, on a machine that is quiet.

Writes analyses/results/app.json: seconds from the start of the server to the first plot, the 95th percentile of a
click until what it reads is shown and until the server has answered, processor seconds and bytes of a click, seconds of
a cold page and of pruning jobs, and memory of all processes over many clicks and four models. Models of ImageNet's and
Fashion-MNIST's sizes are made here, untrained: time does not depend on weights. Fashion-MNIST's images are Debian's.
"""

import argparse
import shlex
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from browsers import ARGUMENTS, browser_path
from playwright.sync_api import sync_playwright
from processes import family, memory
from served import PATIENCE, click_cell, maps, open_page, settle

from aft_lens.checkpoint import save_checkpoint
from aft_lens.files import write_whole
from aft_lens.models import create_model
from analyses.provenance import PUBLISHED, environment
from analyses.result import dump
from app import serve

SHIPPED = Path(__file__).parents[1] / "checkpoints"
LARGE = {"name": "imagenet", "classes": [str(i) for i in range(1000)], "mean": [0.485, 0.456, 0.406],
         "std": [0.229, 0.224, 0.225], "in_chans": 3, "img_size": 224}  # fmt: skip
FASHION = {"name": "fashion-mnist", "classes": [str(i) for i in range(10)], "mean": [0.286], "std": [0.353],
           "in_chans": 1, "img_size": 28}  # fmt: skip
MODELS = ("cifar10-conv", "cifar10-entropy", "digits-conv", "digits-vit")
TEXT = "[...document.querySelectorAll('*')].map(e => e.shadowRoot?.querySelector('{}')).find(Boolean)?.textContent"
CRITERIA = ("random", "taylor", "near", "activation")
NOT_UP = ("ERR_CONNECTION_REFUSED", "interrupted by another navigation")
READ, TITLE = TEXT.format(".reading h4"), TEXT.format(".pane h3")


@contextmanager
def server(root, jobs):
    """A server and the moment that it was started at."""
    port = serve.free_port()
    started = time.monotonic()
    process = serve.start([root], port, jobs=jobs)
    try:
        yield f"http://localhost:{port}", process.pid, started
    finally:
        serve.stop(process)


def seconds_used(pid):
    """Processor seconds of all of them."""
    total = 0.0
    for one in family(pid):
        try:
            times = one.cpu_times()
            total += times.user + times.system
        except psutil.NoSuchProcess:
            continue
    return total


def goto(page, address):
    """Follow a link, again and again while the server is not up."""
    while True:
        try:
            page.goto(address)
            return
        except Exception as error:
            if not any(
                words in str(error) for words in ("ERR_CONNECTION_REFUSED", "interrupted by another navigation")
            ):
                raise
            time.sleep(0.02)


def clicks(page, pid, count, traffic):
    """Click `count` cells; milliseconds until each is read and until the server has answered, CPU seconds and bytes."""
    shown, answered, sizes = [], [], []
    before = seconds_used(pid)
    for number in range(count):
        layer, head, y, x = number % 3, number % 8, number % 5 - 2, (number * 3) % 5 - 2
        settle(page)
        page.wait_for_timeout(60)
        start_bytes, text, url = sum(traffic), page.evaluate(READ), page.url
        begun = time.perf_counter()
        click_cell(page, 0, layer, head, y, x)
        page.wait_for_function(f"({READ}) !== {text!r}", polling=5)
        shown.append(1000 * (time.perf_counter() - begun))
        page.wait_for_function(f"location.href !== {url!r}", polling=5)
        answered.append(1000 * (time.perf_counter() - begun))
        settle(page)
        sizes.append(sum(traffic) - start_bytes)
    page.wait_for_timeout(500)
    return shown, answered, (seconds_used(pid) - before) / count, sizes


def five_visitors(browser, address):
    """Seconds until the jobs of four visitors run, all at once, and until a fifth then has a page of maps."""
    pages = []
    begun = time.monotonic()
    for number in range(4):
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"{address}/pruning?a=digits-conv&b=digits-vit&keep=1,2,4,8,16&by=magnitude,{CRITERIA[number]}")
        pages.append(page)
    for page in pages:  # its first point is there, or all of them
        page.locator(".js-plotly-plot").first.wait_for()
    running = time.monotonic() - begun
    begun = time.monotonic()
    fifth = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    fifth.set_default_timeout(PATIENCE)
    fifth.goto(f"{address}/compare?a=digits-single&b=digits-entropy")
    maps(fifth)
    waited = time.monotonic() - begun
    for page in [*pages, fifth]:
        page.context.close()
    return running, waited


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def measure(count, interactions):
    """Everything, with what the machine did beside it."""
    folder = Path(tempfile.mkdtemp(prefix="aft-lens-measured-"))
    torch.manual_seed(0)
    for name, model, data in (("large", "aft_conv_small_11_16", LARGE), ("fashion", "aft_conv_fashion", FASHION)):
        save_checkpoint(folder / "roots" / name, create_model(model), data=data, recipe={}, seed=0, metrics=[])
    for path in SHIPPED.iterdir():
        if path.is_dir():
            shutil.copytree(path, folder / "roots" / path.name)
    busy = psutil.cpu_percent(interval=3.0)
    with sync_playwright() as playwright:
        path = browser_path(playwright.chromium.executable_path)
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(PATIENCE)
        traffic = []
        page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: traffic.append(len(frame))))
        page.on("response", lambda response: traffic.append(int(response.headers.get("content-length", 0))))
        with server(folder / "roots", folder / "jobs") as (address, pid, started):
            goto(page, f"{address}/compare?a=digits-conv&b=digits-entropy")
            maps(page)
            first = time.monotonic() - started
            first_cpu = seconds_used(pid)
            settle(page)
            page.wait_for_timeout(8000)  # what is imported while nothing is asked for
            shown, answered, cpu, sizes = clicks(page, pid, count, traffic)
            cold = {}
            for name, model in (("small", "cifar10-conv"), ("large", "large")):
                begun = time.monotonic()
                page.goto(f"{address}/compare?a={model}&b={model}")
                page.wait_for_function(f"({TITLE}) === {model!r}")
                cold[name] = time.monotonic() - begun
                settle(page)
            begun = time.monotonic()
            page.goto(f"{address}/pruning?a=digits-single&b=digits-vit&keep=1&by=magnitude")
            page.get_by_test_id("stMetricValue").first.wait_for()
            prune = time.monotonic() - begun
            settle(page)
            begun = time.monotonic()
            page.goto(f"{address}/pruning?a=fashion&b=digits-vit&keep=1,2,4,8,16,32&by=magnitude")
            page.get_by_role("button", name="Take it along").nth(1).wait_for()  # the curve's, and that of one k
            fashion = time.monotonic() - begun
            settle(page)
            others, fifth = five_visitors(browser, address)
            start_memory, seen = memory(pid), []
            for number in range(interactions):
                if number % 25 == 0:
                    pair = MODELS[number // 25 % 4], MODELS[(number // 25 + 1) % 4]
                    open_page(page, address, f"compare?a={pair[0]}&b={pair[1]}", "Compare")
                    maps(page)
                    seen.append(memory(pid))
                click_cell(page, 0, number % 3, number % 4, number % 3 - 1, number % 5 - 2)
                page.wait_for_timeout(30)
            settle(page)
            seen.append(memory(pid))
        browser.close()
    return {
        "first_plot_s": first, "first_plot_cpu_s": first_cpu, "click_p95_ms": percentile(answered, 0.95),
        "click_shown_p95_ms": percentile(shown, 0.95), "click_cpu_s": cpu, "cold_small_s": cold["small"],
        "cold_large_s": cold["large"], "click_bytes": statistics.median(sizes), "prune_digits_s": prune,
        "curve_fashion_s": fashion,
        "visitors": 5, "visitors_jobs_s": others, "visitors_page_s": fifth,
        "memory_mb": max(seen), "memory_start_mb": start_memory, "memory_course_mb": seen, "clicks": count,
        "interactions": interactions, "busy_percent_before": busy,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=60)
    parser.add_argument("--interactions", type=int, default=300)
    parser.add_argument("--out", type=Path, default=PUBLISHED / "app.json")
    options = parser.parse_args()
    line = shlex.join(["python", "tests/measure_app.py", *sys.argv[1:]])
    found = {"command": line, **environment(), **measure(options.clicks, options.interactions)}
    write_whole(options.out, dump(found))
    print(dump(found))
