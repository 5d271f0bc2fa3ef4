"""Shared fixtures: a private cache, the real data where it is there, a bench small enough to run."""

from __future__ import annotations

import logging
import os
from pathlib import Path

# One thread for each test process and its children, before anything imports torch: two processes of two
# threads on two cores spend most of their time waiting for each other. Tests of threads ask for more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As tests/golden/__init__.py, which comes too late where torch is loaded already.
os.environ.setdefault("MKL_CBWR", "AVX2")

import pytest
from hypothesis import HealthCheck, settings

# An example may take as long as a busy machine needs.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

SMALL = "phantom?pretrain=64&train=48&val=32&test=48"
ENCODER = "vit-micro?width=32&depth=2&heads=2&image_size=32&patch_size=8"


@pytest.fixture(autouse=True, scope="session")
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["ECAMP_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the development data; `ECAMP_SHARED` or `shared` next to the repository."""
    root = Path(os.environ.get("ECAMP_SHARED", Path(__file__).parents[2] / "shared"))
    if not (root / "data").is_dir():
        pytest.skip("the development data (ECAMP_SHARED, or ../shared) is not on this machine")
    return root / "data"


@pytest.fixture(scope="session")
def golden(shared_data: Path) -> Path:
    """Folder of vectors that the published code gave."""
    folder = shared_data.parent / "golden" / "dev"
    if not folder.is_dir():
        pytest.skip("the golden vectors (golden/dev of the development data) are not there")
    return folder


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What ecamp logs, from `info` on: `logged.messages`."""
    caplog.set_level(logging.INFO, "ecamp")
    return caplog


@pytest.fixture
def small_bench() -> list[str]:
    """Arguments of a bench of a few seconds."""
    return [
        "bench", "--datasets", SMALL, "--encoders", ENCODER, "--pretrain-data", SMALL,
        "--pretrain-steps", "4", "--fractions", "1", "--seeds", "0", "--bootstrap", "100",
    ]  # fmt: skip
