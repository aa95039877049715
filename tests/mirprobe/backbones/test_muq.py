import inspect
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants

from datamodules.errors import UserError
from mirprobe.backbones.muq import MSD_ITER, MuQ

CONF = Path(__file__).parents[3] / "conf" / "model"


def test_config_holds_the_arguments_and_nothing_else():
    config = yaml.safe_load((CONF / "muq.yaml").read_text())
    arguments = inspect.signature(MuQ).parameters
    assert set(config) == {"name", "_target_", "card", *arguments}
    assert config["_target_"] == "mirprobe.backbones.muq.MuQ"
    assert MSD_ITER.model == config["name"] == "muq"
    for key, argument in arguments.items():
        assert config[key] == argument.default


def test_missing_weights_name_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    problem = r"model.safetensors of OpenMuQ/MuQ-large-msd-iter .* mirprobe fetch model=muq"
    with pytest.raises(UserError, match=problem):
        MuQ()


def test_no_stored_front_end_is_expected():
    assert not MuQ.stored
