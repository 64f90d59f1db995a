"""The curve in letters: columns are as high as the values, in eighths of a line."""

from hypothesis import given
from hypothesis import strategies as st

from stepwell.report.text_chart import EIGHTHS, text_chart


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=60), rows=st.integers(2, 10))
def test_columns_are_as_high_as_the_values(values, rows):
    """Counted from its letters, each column is value / highest of the chart's height, to half an eighth."""
    lines = text_chart(values, "end", rows)
    assert len(lines) == rows + 1 and lines[-1].endswith("end")
    bars = [line.partition("|")[2].ljust(len(values)) for line in lines[:-1]]
    for k, value in enumerate(values):
        eighths = sum(EIGHTHS.index(bar[k]) for bar in bars)
        wanted = value / max(values) * 8 * rows if max(values) > 0 else 0
        assert abs(eighths - wanted) <= 0.5


def test_a_terminal_without_block_letters_gets_crosses():
    """Whole lines of #; the axes say the highest value and 0."""
    lines = text_chart([0.0, 0.25, 0.5], "update 2", rows=2, blocks=False)
    assert lines == ["     0.5 |  #", "       0 | ##", "          0 update 2"]
    assert all(line.isascii() for line in lines)
