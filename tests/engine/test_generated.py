"""Modules made from text are ordinary modules."""

import inspect
import sys
import traceback

import pytest

from stepwell.engine.generated import module


def test_a_module_is_made_once_and_can_be_read():
    """The same text is the same module, with a source that inspect and tracebacks find."""
    text = "def f(x):\n    return 1 / x\n"
    made = module("test", text)
    assert module("test", text) is made is sys.modules[made.__name__]
    assert module("test", text + "\n") is not made
    assert inspect.getsource(made.f) == text
    with pytest.raises(ZeroDivisionError) as caught:
        made.f(0)
    assert "return 1 / x" in "".join(traceback.format_exception(caught.value))


def test_a_module_that_fails_leaves_nothing():
    """Its error comes through, and the next try runs it again."""
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            module("test", "1 / 0\n")
    assert not [
        name
        for name in sys.modules
        if name.startswith("stepwell_test_") and not hasattr(sys.modules[name], "f")
    ]
