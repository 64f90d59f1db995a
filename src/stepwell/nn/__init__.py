"""Layers, models and losses."""

from stepwell.nn import initialization as init

__all__ = ["init"]
