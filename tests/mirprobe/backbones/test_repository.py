from pathlib import Path

import pytest
from huggingface_hub import constants

from datamodules.errors import UserError
from mirprobe.backbones import repository
from mirprobe.backbones.repository import fetch_repository, locate_weights

COMMIT = "e" * 40
NAMED = {"id": "owner/net", "revision": COMMIT}


@pytest.fixture
def snapshot(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--owner--net" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "model.safetensors.index.json"])
def test_weights_are_found_whole_or_in_parts(snapshot, name):
    (snapshot / name).write_bytes(b"{}")
    assert locate_weights(NAMED) == snapshot / name


def test_random_weights_need_the_config_alone(snapshot):
    (snapshot / "config.json").write_bytes(b"{}")
    assert locate_weights(NAMED | {"weights": "random"}) == snapshot / "config.json"
    with pytest.raises(UserError, match=r"of owner/net at eeeeeeeeeeee is not on") as no:
        locate_weights(NAMED)
    assert f"mirprobe fetch model=hf model.id=owner/net model.revision={COMMIT}" in str(no.value)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "model=hf needs model.id=OWNER/NAME, found None"),
        ({"id": "net", "revision": COMMIT}, "found 'net'"),
        ({"id": "../../etc/net", "revision": COMMIT}, "needs model.id=OWNER/NAME"),
        ({"id": "owner/net"}, "model.id=owner/net needs model.revision=COMMIT too, 40 hex digits"),
        ({"id": "owner/net", "revision": "main"}, "model.revision must be 40 hex digits"),
    ],
)
def test_a_repository_is_named_with_its_commit(settings, problem):
    for ask in (locate_weights, fetch_repository):
        with pytest.raises(UserError) as caught:
            ask(settings)
        assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("more", "patterns"),
    [
        ({}, ["*.json", "*.safetensors"]),
        ({"weights": "random"}, ["*.json"]),
        ({"trust_remote_code": True}, ["*.json", "*.safetensors", "*.py"]),
    ],
)
def test_code_is_fetched_only_where_it_is_trusted(snapshot, monkeypatch, more, patterns):
    asked = []
    monkeypatch.setattr(repository, "snapshot_download", lambda *a, **k: asked.append((a, k)))
    for name in ("model.safetensors", "config.json"):
        (snapshot / name).write_bytes(b"{}")

    fetch_repository(NAMED | more)
    assert asked == [(("owner/net",), {"revision": COMMIT, "allow_patterns": patterns})]


def test_without_a_network_it_says_what_to_check(snapshot, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (snapshot / "model.safetensors").write_bytes(b"{}")

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no\nroute")

    monkeypatch.setattr(repository, "snapshot_download", refuse)
    with pytest.raises(UserError, match=r"cannot download owner/net at e{12}: no route\. Check"):
        fetch_repository(NAMED)
