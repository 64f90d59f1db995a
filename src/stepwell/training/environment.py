"""What a run ran on, for its result and its report."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version
from typing import Any

import torch


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, platform, device and threads; the same bits need the same of all of them."""
    found = {
        "stepwell": _version(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
    return found


@cache
def _version() -> str:
    return version("stepwell")


@cache
def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()
