"""Linear model."""

import pytest
import torch

from stepwell.errors import UserError
from stepwell.nn.configs import LinearModel
from stepwell.nn.linear import build


@pytest.mark.parametrize("shape", [(13,), (7, 3), (1, 8, 8)])
def test_is_one_matrix_product_of_the_flattened_input(shape):
    """y = x Wᵀ + b in float64, whatever the input's shape."""
    body = build(LinearModel(), shape, 4).double()
    x = torch.randn(6, *shape, dtype=torch.float64)
    weight, bias = body.parameters()
    expected = torch.stack([torch.stack([row.flatten() @ w for w in weight]) for row in x]) + bias
    torch.testing.assert_close(body(x), expected)


def test_refuses_text():
    """Numbers of characters are no quantities."""
    with pytest.raises(
        UserError, match=r"model linear wants .*, but the data has text: use model=transformer"
    ):
        build(LinearModel(), (64,), 65, "text")
