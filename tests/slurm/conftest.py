"""One SLURM for all trials; where it cannot be had they are skipped, with the reason."""

from collections.abc import Iterator

import pytest
from slurm.cluster import Cluster, running_cluster, why_not


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with running_cluster() as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(running.root / "slurm.conf"))
        yield running
