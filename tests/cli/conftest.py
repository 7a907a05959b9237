from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_job import SHORTLY, Finished, edgeprune, leftovers, write_job


@pytest.fixture(scope="module", autouse=True)
def _toolkits_are_warm(warm_toolkits: None) -> None: ...


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A latency table and device folder of our own: the user's stay as they are, and what is probed is kept."""
    return {"XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module", autouse=True)
def _in_that_environment(environment: dict[str, str]) -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Finished:
    folder = tmp_path_factory.mktemp("whole")
    recipe, run = write_job(folder), folder / "run"
    done = edgeprune("run", recipe, "--out", run, "--json", command=SHORTLY, environment=environment)
    return Finished(recipe, run, done, tuple(leftovers(run)))


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """The finished run again, to be changed."""
    return Path(shutil.copytree(finished.run, tmp_path / "run"))
