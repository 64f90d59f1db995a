"""What a schedule is: a function of the step, and nothing to get out of date."""

from collections.abc import Callable

# From a point in the run, counted in updates from 0 (a float, so that a run measured in seconds can
# say how far it is), to the value there.
Schedule = Callable[[float], float]
