"""The smallest demo corpus of all datasets, built once for all tests of the demo."""

from pathlib import Path

import pytest

from datamodules.demo.build import DATASETS, build
from datamodules.demo.recipe import demo_root


@pytest.fixture(scope="session")
def tiny() -> float:
    """The scale of `corpus`."""
    return 0.02


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, tiny: float) -> Path:
    """Root of all datasets; for reading only."""
    root = demo_root(tmp_path_factory.mktemp("demo"), tiny)
    for dataset in DATASETS:
        build(root, dataset, scale=tiny)
    return root
