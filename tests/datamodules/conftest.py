"""A server for the tests of downloads and archives."""

from collections.abc import Iterator

import pytest
from file_server import Server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    running = Server()
    yield running
    running.release.set()
    running.http.shutdown()
    running.http.server_close()
