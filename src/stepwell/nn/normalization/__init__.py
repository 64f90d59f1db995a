"""Normalization, one method a file; `registry` has them by name."""
