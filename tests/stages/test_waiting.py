"""A job that finds its device in use: refused at once, or it waits for as long as its recipe says."""

from __future__ import annotations

import threading
from pathlib import Path

from facts import refused

from edgeprune.devices.discovery import open_device
from edgeprune.errors import DeviceError
from edgeprune.progress import Silent
from edgeprune.recipe_file import parse_recipe
from edgeprune.runs import create_run
from edgeprune.stages.context import Context


def job(folder: Path, **device: float) -> Context:
    tree = {"model": {"name": "resnet18"}, "data": {"source": "digits"}, "device": device}
    return Context(create_run(folder, parse_recipe(tree), {}), Silent())


def test_a_job_waits_for_its_device_as_long_as_the_recipe_says(tmp_path: Path) -> None:
    impatient, waiting = job(tmp_path / "refused"), job(tmp_path / "waiting", wait_minutes=1)
    taken, begun = threading.Event(), threading.Event()
    order: list[str] = []

    def measure() -> None:
        with open_device("local").lease(wait_s=60):
            taken.set()
            assert begun.wait(60)
            order.append("the first is done")

    first = threading.Thread(target=measure)
    first.start()
    assert taken.wait(60)
    with refused(DeviceError, "local", "wait_minutes", code=4), impatient.lease():
        pass
    begun.set()
    with waiting.lease():
        order.append("the second measures")
    first.join()
    assert order == ["the first is done", "the second measures"]
