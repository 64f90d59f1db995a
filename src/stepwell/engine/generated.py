"""Python modules made from text that the program printed itself, held in memory."""

from __future__ import annotations

import hashlib
import sys
import threading
from importlib.abc import ExecutionLoader
from importlib.util import module_from_spec, spec_from_loader
from types import ModuleType

_lock = threading.Lock()


def module(kind: str, text: str) -> ModuleType:
    """The module with this text, made once a process.

    It has an ordinary place in `sys.modules`, so that `inspect` and tracebacks find its text. Its name
    depends on the text alone: what others keep under that name (Triton its machine code, on disk) serves
    later processes too.
    """
    name = f"stepwell_{kind}_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    with _lock:
        if name not in sys.modules:
            spec = spec_from_loader(name, _Text(text))
            assert spec is not None and spec.loader is not None
            sys.modules[name] = module_from_spec(spec)  # there already while it runs, as import does it
            try:
                spec.loader.exec_module(sys.modules[name])
            except BaseException:
                del sys.modules[name]
                raise
        return sys.modules[name]


class _Text(ExecutionLoader):
    """Loads a module from its text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def get_source(self, fullname: str) -> str:
        return self.text

    def get_filename(self, fullname: str) -> str:
        return f"{fullname}.py"  # there is no such file: readers ask get_source
