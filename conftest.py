"""What all tests and benches share: a cache of their own, so that nothing of the user's is read or changed. All workers
of a run have the same, so that none makes what another has made."""

from __future__ import annotations

import gc

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all-boards", action="store_true", help="build a bitstream for every board, not one a family")


def pytest_collection_finish() -> None:
    """Hardware is made of many small objects, few of which ever are garbage: look for that less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory, worker_id: str):
    base = tmp_path_factory.getbasetemp()
    cache = (base if worker_id == "master" else base.parent) / "cache"
    cache.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATGRAD_HW_CACHE", str(cache))
        patch.setenv("PYTHONWARNINGS", "error")  # in the simulator's process, too
        yield
