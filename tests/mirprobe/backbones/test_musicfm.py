import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from golden_recipe import SmallMusicFM
from huggingface_hub import constants

from datamodules.errors import UserError
from mirprobe.backbones.conformer import ConformerVariant
from mirprobe.backbones.musicfm import FMA, FMA_STATISTICS, MSD, MSD_STATISTICS, MusicFM

CONF = Path(__file__).parents[3] / "conf" / "model"


@pytest.mark.parametrize(("name", "weights"), [("musicfm", "msd"), ("musicfm_fma", "fma")])
def test_config_holds_the_arguments_and_nothing_else(name, weights):
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    arguments = inspect.signature(MusicFM).parameters
    assert set(config) == {"name", "_target_", "card", *arguments}
    assert config["_target_"] == "mirprobe.backbones.musicfm.MusicFM"
    assert (config["name"], config["weights"]) == (name, weights)
    assert MusicFM.variants[weights].file.model == name

    for key, argument in arguments.items():
        assert config[key] == (weights if key == "weights" else argument.default)


def test_statistics_and_files_belong_together():
    assert MusicFM.variants["msd"] == ConformerVariant(MSD, *MSD_STATISTICS)
    assert MusicFM.variants["fma"] == ConformerVariant(FMA, *FMA_STATISTICS)
    assert MusicFM.variants["random"] == ConformerVariant(None, *MSD_STATISTICS)


@pytest.mark.parametrize(("weights", "name"), [("msd", "musicfm"), ("fma", "musicfm_fma")])
def test_missing_weights_name_the_command(weights, name, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    problem = f"are not on this machine. Run: mirprobe fetch model={name}, or set"
    with pytest.raises(UserError, match=problem):
        MusicFM(weights=weights)


def test_file_of_the_other_variant_is_refused(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"fma weights")
    fma = replace(FMA, n_bytes=11, sha256=hashlib.sha256(b"fma weights").hexdigest())

    class Small(SmallMusicFM):
        variants: ClassVar[Mapping[str, ConformerVariant]] = {
            **SmallMusicFM.variants,
            "fma": ConformerVariant(fma, *FMA_STATISTICS),
        }

    problem = r"weights.pt is the published pretrained_fma.pt, not msd: set model=musicfm_fma"
    with pytest.raises(UserError, match=problem):
        Small(weights="msd", checkpoint=str(path))


def test_damaged_cached_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    path = tmp_path / "models--minzwon--MusicFM" / "snapshots" / MSD.revision / MSD.name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"PK\x03\x04 cut")
    problem = r"it has 8 bytes instead of 1,316,802,088\. Run: mirprobe fetch model=musicfm"
    with pytest.raises(UserError, match=problem):
        SmallMusicFM(weights="msd")
