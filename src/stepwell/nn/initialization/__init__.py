"""Initialization: schemes that fill one tensor, and what fills a whole model by them.

`sw.nn.init` is this package: `sw.nn.init.he_normal_(tensor)` and the like.
"""

from stepwell.nn.initialization.tensors import (
    fans,
    he_normal_,
    he_uniform_,
    large_normal_,
    orthogonal_,
    small_normal_,
    xavier_normal_,
    xavier_uniform_,
    zeros_,
)

__all__ = [
    "fans",
    "he_normal_",
    "he_uniform_",
    "large_normal_",
    "orthogonal_",
    "small_normal_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]
