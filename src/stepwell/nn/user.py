"""The user's own model, named `module:function`."""

from __future__ import annotations

import importlib
import os
import sys

from torch import nn

from stepwell.data.dataset import Kind
from stepwell.errors import UserError
from stepwell.nn.configs import UserModel


def build(
    config: UserModel, input_shape: tuple[int, ...], outputs: int, kind: Kind | None = None
) -> nn.Module:
    """Returns `function(input_shape, outputs, **arguments)`, looked up from the current directory first.

    The module takes standardized inputs (B, *input_shape), or tokens (B, T), and returns
    (B, outputs), or (B, T, outputs). It is the user's own code and runs with the user's rights.
    """
    module_name, function_name = config.name.split(":")
    if os.getcwd() not in sys.path:  # stays there: the user's function may import more when it is called
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and f"{module_name}.".startswith(f"{error.name}.")
        if missing:
            raise UserError(
                f"model {config.name}: there is no module {module_name} in the current directory "
                f"or among the installed packages"
            ) from error
        raise UserError(
            f"model {config.name}: importing {module_name} failed with {_short(error)}"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(
            f"model {config.name}: {module_name} ({module.__file__}) has no function {function_name}"
        )
    try:
        body = function(input_shape, outputs, **config.arguments)
    except Exception as error:
        raise UserError(
            f"model {config.name}: {function_name}({input_shape}, {outputs}, …) raised {_short(error)}"
        ) from error
    if not isinstance(body, nn.Module):
        raise UserError(
            f"model {config.name}: {function_name} must return a torch.nn.Module, not {type(body).__name__}"
        )
    return body


def _short(error: Exception) -> str:
    """The error's type and the first line of its text: a user's message stays one sentence."""
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
