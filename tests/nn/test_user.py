"""The user's own model."""

import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from stepwell.errors import UserError
from stepwell.nn.configs import UserModel
from stepwell.nn.registry import build

MODULE = """
import torch

def good(input_shape, outputs, width=3):
    return torch.nn.Sequential(torch.nn.Linear(input_shape[0], width), torch.nn.Linear(width, outputs))

def wrong(input_shape, outputs):
    return "a network"

def fails(input_shape, outputs):
    raise RuntimeError("no luck\\nsecond line")

constant = 5
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory with the user's file, forgotten by Python afterwards."""
    (tmp_path / "my_net_test.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "broken_test.py").write_text("import surely_not_installed", encoding="utf-8")
    (tmp_path / "typo_test.py").write_text("def f(:", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name, module in sys.modules.items() if _lies_in(module, tmp_path)]:
        del sys.modules[name]


def _lies_in(module: object, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and folder in Path(file).parents


def test_builds_from_the_current_directory(folder):
    """The function gets the shape, the outputs and the recipe's arguments."""
    body = build(UserModel(name="my_net_test:good", arguments={"width": 7}), (4,), 2)
    assert body(torch.randn(5, 4)).shape == (5, 2)
    assert sum(weight.numel() for weight in body.parameters()) == 4 * 7 + 7 + 7 * 2 + 2


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("no_such_test:f", {}, "there is no module no_such_test in the current directory"),
        ("my_net_test.sub:f", {}, "there is no module my_net_test.sub in the current directory"),
        (
            "broken_test:f",
            {},
            "importing broken_test failed with ModuleNotFoundError: No module named 'surely",
        ),
        ("typo_test:f", {}, "importing typo_test failed with SyntaxError"),
        ("my_net_test:missing", {}, r"my_net_test \(.*my_net_test.py\) has no function missing"),
        ("my_net_test:constant", {}, "has no function constant"),
        ("my_net_test:good", {"depth": 2}, "raised TypeError: .*unexpected keyword argument 'depth'"),
        ("my_net_test:fails", {}, r"raised RuntimeError: no luck$"),
        ("my_net_test:wrong", {}, "wrong must return a torch.nn.Module, not str"),
    ],
)
def test_mistakes_are_told_in_one_sentence(folder, name, arguments, sentence):
    """Each names the model and what is wrong, without a line break."""
    with pytest.raises(UserError, match=sentence) as caught:
        build(UserModel(name=name, arguments=arguments), (4,), 2)
    assert str(caught.value).startswith(f"model {name}: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mlp2", "a:b:c", "a b:c", ":f", "a:", "../a:f", ".a:f", "a.:f"])
def test_only_a_module_and_a_function_are_names(name):
    """Paths and relative imports are refused before anything is imported."""
    with pytest.raises(ValidationError):
        UserModel(name=name)
