"""Heat maps show where a run is most of the time."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stepwell.report.layers import layer_heat_maps
from stepwell.report.run_folder import LayerHistory, RunFolder


def test_zero_is_darkest_and_the_last_small_steps_do_not_take_all_colours() -> None:
    """Ratios of 10⁻³ … 10⁻² that end in 10⁻⁸ and 0: two decades of colour; only NaN is left blank."""
    ratio = np.logspace(-2, -3, 100)[:, None] * np.ones((1, 3))
    ratio[-2], ratio[-1], ratio[0, 2] = 1e-8, 0.0, np.nan
    run = RunFolder(Path("r"), layers=LayerHistory(["a", "b", "c"], np.arange(100.0), ratio, ratio))
    for figure in layer_heat_maps(run):
        trace = figure.data[0]
        z = np.array(trace["z"], dtype=float)
        assert -3 <= trace["zmin"] < -2.9 and trace["zmax"] == -2
        assert np.allclose(z[:, -2:], trace["zmin"], atol=1e-3)
        assert np.isnan(z).sum() == 1 and np.isnan(z[2, 0])
        assert "zero included" in figure.caption


def test_a_lone_column_is_wide_enough_to_be_seen() -> None:
    """The first row of a run, at update 50, takes a tenth of the axis and not a fiftieth."""
    one = np.full((1, 2), 0.1)
    layers = LayerHistory(["a", "b"], np.array([50.0]), one, one)
    for figure in layer_heat_maps(RunFolder(Path("r"), layers=layers)):
        assert figure.data[0]["x"] == [45, 55]
