"""What is said of single predictions agrees with the counts."""

from __future__ import annotations

from pathlib import Path

from stepwell.report.headline import headline
from stepwell.report.predictions import frequent_confusions
from stepwell.report.run_folder import RunFolder


def evaluated(confusion: list[list[int]]) -> RunFolder:
    """A run of the classes a, b, c with this confusion, rows true."""
    evaluation = {"task": "multi-class", "classes": ["a", "b", "c"], "confusion": confusion}
    return RunFolder(
        Path("r"), result={"status": "finished", "test": {"accuracy": 0.5}}, evaluation=evaluation
    )


def test_frequent_mistakes_and_how_many_as_frequent_are_left_out() -> None:
    """Of 3, 1, 1 and 1 the first two are listed, and two more happened once."""
    listed, more = frequent_confusions(evaluated([[5, 1, 1], [3, 7, 0], [1, 0, 9]]), limit=2)
    assert listed == [("b", "a", 3, 0.3), ("a", "b", 1, 1 / 7)] and more == 2
    assert frequent_confusions(evaluated([[5, 0, 0], [0, 7, 0], [0, 0, 9]])) == ([], 0)


def test_the_most_frequent_mistake_is_named_only_if_it_is_one() -> None:
    """Equally frequent mistakes have no first; a network with one answer has no mistakes to compare."""
    one = headline(evaluated([[5, 1, 1], [3, 7, 0], [1, 0, 9]])).summary
    several = headline(evaluated([[5, 3, 1], [3, 7, 0], [1, 0, 9]])).summary
    constant = headline(evaluated([[0, 7, 0], [0, 9, 0], [0, 8, 0]])).summary
    assert "“b” taken for “a” (3 times)" in one
    assert "most frequent mistake" not in several + constant
    assert "one answer to every sample: “b”" in constant
