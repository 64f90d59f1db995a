"""The models' configs."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from stepwell.nn.configs import CONFIGS, UserModel


def test_importing_the_configs_does_not_load_torch():
    """Help and checks of a recipe need the configs alone."""
    code = "import sys, stepwell.nn.configs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("config", [*CONFIGS.values(), UserModel])
def test_every_key_is_described_and_unknown_ones_refused(config):
    """A key's description is its help text."""
    for key, field in config.model_fields.items():
        assert field.description or key == "name", key
    name = {"name": "a:b"} if config is UserModel else {}
    with pytest.raises(ValidationError, match="hiden"):
        config.model_validate({**name, "hiden": [3]})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mlp", {"hidden": [0]}),
        ("mlp", {"hidden": 64}),
        ("mlp", {"activation": "swish"}),
        ("mlp", {"dropout": 1.0}),
        ("cnn", {"channels": []}),
        ("cnn", {"kernel": 4}),
        ("resnet", {"depth": 21}),
        ("rnn", {"cell": "rnn"}),
        ("transformer", {"heads": 5}),
    ],
)
def test_senseless_values_are_refused(name, options):
    """Out of range, of the wrong type, or at odds with another key."""
    with pytest.raises(ValidationError):
        CONFIGS[name](**options)
