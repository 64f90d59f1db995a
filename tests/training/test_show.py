"""What a person is shown of a sample."""

from pathlib import Path

from stepwell.data.table import TableData, load
from stepwell.training.show import shower


def test_a_table_row_shows_features_first_and_its_line(tmp_path: Path) -> None:
    """Left-out columns come last, the target is told apart from the features, and the line is the file's."""
    lines = ["note,id,x,y,z", *(f"n{k},{k},{k % 7}.5,{k * 0.37},{k % 5}.25" for k in range(40))]
    file = tmp_path / "t.csv"
    file.write_text("\n".join(lines) + "\n")
    config = TableData(name=str(file), target="y", ignore=["note", "id"])
    data = load(config)
    show = shower(data, data.test, str(file))
    for position in range(len(data.test)):
        shown = show(position)
        assert list(shown["values"]) == ["x", "z", "note", "id"]
        assert lines[shown["row"] - 1].startswith(f"{shown['values']['note']},")  # an editor counts from 1
