"""What the tests of the optimizers share."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def float64_scalars() -> Iterator[None]:
    """torch keeps a parameter's scalars (of NAdam and ASGD) in the default type; ours are always float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
