"""Writes flats.csv and new_flats.csv: invented flats and their rents, with gaps, words, dates and noise.

python examples/flats.py
"""

from __future__ import annotations

import csv
import datetime
import random
from pathlib import Path

HERE = Path(__file__).parent
DISTRICTS = {"Altstadt": 1.3, "Östersund": 1.0, "Río Alto": 0.9, "Hafen": 1.15, "Söderberg": 0.8}
HEATING = {"gas": 0, "district": 20, "heat pump": 45, "oil": -35}
COLUMNS = ["area", "rooms", "district", "heating", "balcony", "listed", "rent"]


def flat(draw: random.Random) -> dict[str, object]:
    """One flat; about one value in twenty is missing, as in a real table."""
    area = round(draw.lognormvariate(4.2, 0.35), 1)
    rooms = max(1, round(area / 26 + draw.gauss(0, 0.5)))
    district, heating = draw.choice(list(DISTRICTS)), draw.choice(list(HEATING))
    balcony = draw.random() < 0.4
    listed = datetime.date(2023, 1, 1) + datetime.timedelta(draw.randrange(730))
    inflation = 1 + 0.04 * (listed.year - 2023 + listed.month / 12)
    rent = (120 + 11 * area * DISTRICTS[district] + HEATING[heating] + 60 * balcony) * inflation
    row: dict[str, object] = {
        "area": area,
        "rooms": rooms,
        "district": district,
        "heating": heating,
        "balcony": "yes" if balcony else "no",
        "listed": listed.isoformat(),
    }
    for name in ("rooms", "heating", "listed"):
        if draw.random() < 0.05:
            row[name] = ""
    return row | {"rent": round(rent + draw.gauss(0, 40))}


def write(path: Path, rows: list[dict[str, object]], columns: list[str]) -> None:
    """Writes these columns of the rows as CSV."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def main() -> None:
    """600 flats to learn from, five to predict."""
    draw = random.Random(0)
    rows = [flat(draw) for _ in range(605)]
    write(HERE / "flats.csv", rows[:600], COLUMNS)
    write(HERE / "new_flats.csv", rows[600:], COLUMNS[:-1])


if __name__ == "__main__":
    main()
