"""`stepwell compare` as one types it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from stepwell import cli

TINY = "data=iris model.hidden=[4] training.epochs=2 seeds=2"
WORDS = f"compare {TINY} optimizer=sgd,adam optimizer.lr=log(0.01,1,3)"


def typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> tuple[str, str, int]:
    monkeypatch.setattr(sys, "argv", ["stepwell", *words.split()])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    out, err = capsys.readouterr()
    return out, err, code


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_table_fits_100_columns_and_says_all(monkeypatch, capsys):
    """A line an entry with value, mean, difference and p; then the verdict, and where the page is."""
    out, err, code = typed(monkeypatch, capsys, WORDS)
    lines = out.splitlines()
    assert code == 0 and lines[0].startswith(
        "Trained 12 runs of 2 epochs on 102 samples of iris: 2 entries, 2 seeds"
    )
    assert all(len(line) <= 100 for line in lines[1:8])
    assert {"sgd", "adam"} <= {line.split()[0] for line in lines if line.strip()}
    assert any("reference" in line for line in lines)
    assert (
        "best on the validation part" in out
        and out.splitlines()[-1] == "Report: runs/compare-iris/compare.html"
    )
    assert all(line.startswith("Note: ") for line in err.splitlines())


def test_json_is_one_object(monkeypatch, capsys):
    """--json prints the result and nothing else there, also of a comparison that goes on."""
    out, err, code = typed(monkeypatch, capsys, f"{WORDS} --json --out one")
    found = json.loads(out)
    assert code == 0 and err == "" and found["folder"] == "one"
    assert json.loads(Path("one/result.json").read_text())["entries"] == found["entries"]
    again, _, code = typed(monkeypatch, capsys, "compare --resume one --json")
    assert code == 0 and json.loads(again) == {**found, "resumed": False}


def test_report_writes_the_page_again(monkeypatch, capsys):
    """`stepwell report DIR` knows a comparison."""
    typed(monkeypatch, capsys, f"{WORDS} --out one")
    before = Path("one/compare.html").read_text()
    Path("one/compare.html").unlink()
    out, _, code = typed(monkeypatch, capsys, "report one")
    assert (out, code) == ("one/compare.html\n", 0) and Path("one/compare.html").read_text() == before


def test_what_diverges_ends_with_code_3(monkeypatch, capsys):
    """One sentence, and nothing on stdout."""
    out, err, code = typed(
        monkeypatch, capsys, "compare data=iris optimizer=sgd,momentum optimizer.lr=1e30 training.epochs=1"
    )
    assert (
        code == 3 and out == "" and err.startswith("stepwell: all 10 runs diverged") and err.count("\n") == 1
    )
