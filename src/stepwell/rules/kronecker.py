"""Words of the rules that precondition each dimension of a tensor with a matrix (Shampoo, SOAP).

A tensor has as many such matrices as dimensions, so they are kept behind one another in one flat tensor.
None stands for a dimension without one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

Matrix = Tensor | None


def new(w: Tensor, sides: Iterable[Sequence[int] | None]) -> Tensor:
    """Zeros for matrices of these sizes, at least float32: half precision has no decompositions."""
    count = sum(torch.Size(size).numel() for size in sides if size is not None)
    return w.new_zeros(count, dtype=torch.promote_types(w.dtype, torch.float32))


def unpack(packed: Tensor, sides: Iterable[Sequence[int] | None]) -> list[Matrix]:
    """The matrices that lie in a flat tensor, in the order of their dimensions."""
    found: list[Matrix] = []
    start = 0
    for size in sides:
        if size is None:
            found.append(None)
            continue
        end = start + torch.Size(size).numel()
        found.append(packed[start:end].view(*size))
        start = end
    return found


def pack(matrices: Iterable[Matrix], like: Tensor) -> Tensor:
    """The matrices as one flat tensor of the type of `like`."""
    parts = [m.reshape(-1).to(like.dtype) for m in matrices if m is not None]
    return torch.cat(parts) if parts else like


def gram(x: Tensor, dimension: int) -> Tensor:
    """X Xᵀ, where the rows of X are the slices of x along the dimension."""
    rows = _rows(x, dimension)
    return rows @ rows.T


def along(x: Tensor, matrix: Matrix, dimension: int) -> Tensor:
    """Multiplies x with the matrix along the dimension: y_i = Σ_j M_ij x_j."""
    if matrix is None:
        return x
    return (matrix @ _rows(x, dimension)).view(x.movedim(dimension, 0).shape).movedim(0, dimension)


def _rows(x: Tensor, dimension: int) -> Tensor:
    slices = x.movedim(dimension, 0)
    return slices.reshape(len(slices), x.numel() // max(len(slices), 1))


def eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (ascending) and eigenvectors of a symmetric matrix, in float64.

    All NaN where an entry is not finite (an overflow that a GradScaler is about to skip): LAPACK raises.
    """
    matrix = matrix.double()
    there = matrix.isfinite().all()
    one = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    values, vectors = torch.linalg.eigh(torch.where(there, matrix, one))
    nan: Any = torch.nan
    return torch.where(there, values, nan), torch.where(there, vectors, nan)
