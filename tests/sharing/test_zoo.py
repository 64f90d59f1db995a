"""The list of trained models: each once, whatever is wrong with others, within the table's width."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

import stepwell as sw
from stepwell import cli
from stepwell.errors import UserError
from stepwell.sharing.card import Card
from stepwell.sharing.zoo import WIDTH, table


@pytest.fixture
def shelf(runs, tmp_path) -> Path:
    """A folder with whole models, damaged ones, and what is none."""
    for name in ("table", "numbers"):
        shutil.copytree(runs / "runs" / name, tmp_path / "deep" / "down" / name)
    sw.push(runs / "runs" / "images", tmp_path / "pushed", licence="mit")
    for name in ("unfinished", "bad-result", "no-weights", "cut", "strange"):
        shutil.copytree(runs / "runs" / "table", tmp_path / name)
    (tmp_path / "unfinished/result.json").unlink()
    (tmp_path / "bad-result/result.json").write_text("{")
    (tmp_path / "no-weights/model.safetensors").unlink()
    os.truncate(tmp_path / "cut/model.safetensors", 900)
    shutil.copy(runs / "runs/arrays/model.safetensors", tmp_path / "strange")
    for name, file, text in (("no-card", "config.json", None), ("bad-config", "config.json", "[1]")):
        shutil.copytree(tmp_path / "pushed", tmp_path / name)
        (tmp_path / name / file).unlink()
        if text is not None:
            (tmp_path / name / file).write_text(text)
    shutil.copytree(tmp_path / "pushed", tmp_path / "no-readme")
    (tmp_path / "no-readme/README.md").unlink()
    shutil.copytree(runs / "runs" / "table", tmp_path / "odd-result")
    result = json.loads((tmp_path / "odd-result/result.json").read_text())
    result |= {"parameters": 10**400, "frozen_parameters": "x", "environment": [1]}
    (tmp_path / "odd-result/result.json").write_text(json.dumps(result))
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/config.json").write_text('{"editor": "tabs"}')
    (tmp_path / ".hidden").mkdir()
    shutil.copytree(runs / "runs" / "table", tmp_path / ".hidden" / "run")
    (tmp_path / "loop").symlink_to(tmp_path)
    return tmp_path


WRONG = {
    "unfinished": "not finished",
    "bad-result": "damaged",
    "no-weights": "missing",
    "cut": "damaged",
    "strange": "not the model that the card tells of",
    "no-card": "no card",
    "bad-config": "not of Stepwell",
    "no-readme": "no card for people",
    "odd-result": "its card is damaged",
}


def test_every_model_is_listed_once(shelf):
    """Whole ones with their facts, the others with what is wrong; links and hidden folders are not."""
    found = {Path(card["path"]).relative_to(shelf).as_posix(): card for card in sw.zoo(shelf, shelf)}
    assert found.keys() == {"deep/down/table", "deep/down/numbers", "pushed", *WRONG}
    for name, part in WRONG.items():
        assert part in found[name]["problem"], found[name]
    result = json.loads((shelf / "deep/down/table/result.json").read_text())
    card, entry = found["deep/down/table"], result["test"]["accuracy"]
    assert (card["data"], card["model"], card["parameters"]) == ("table", "mlp", result["parameters"])
    assert (card["metric"], card["value"], card["low"], card["high"]) == ("accuracy", *entry.values())
    assert (card["licence"], card["problem"], found["pushed"]["licence"]) == (None, "", "mit")
    assert found["deep/down/numbers"]["metric"] == "rmse"


def test_the_table_is_narrow_and_whole(shelf, monkeypatch, capsys):
    """At most 110 columns for each whole model, one line each, and the damaged below; exit code 0."""
    monkeypatch.chdir(shelf)
    monkeypatch.setattr(sys, "argv", ["stepwell", "zoo", "."])
    cli.main()
    out = capsys.readouterr().out
    whole, wrong = out.split("\n\nNot to be used:\n")
    assert len(whole.splitlines()) == 4 and max(map(len, whole.splitlines())) <= WIDTH
    assert len(wrong.splitlines()) == len(WRONG) and all(f"  {name}: " in wrong for name in WRONG)


def test_any_card_fits_the_width():
    """Longest entries in every column: the line stays within the width."""
    card = Card(
        "p" * 300, "n" * 99, "d" * 99, "m" * 99, "multi-class", 10**12, "balanced_accuracy", "validation"
    )
    card.value, card.low, card.high, card.licence, card.date = 0.123456, 0.1, 0.2, "l" * 40, "2026-01-31"
    assert max(map(len, table([card, card]))) <= WIDTH


def test_a_strangers_card_is_plain_text(shelf):
    """Control characters, long texts and numbers that are none do not reach the terminal."""
    config = json.loads((shelf / "pushed/config.json").read_text())
    config["card"] |= {
        "data": {"name": "\x1b[2J\nred" * 50},
        "date": "\x1b" * 99,
        "licence": "\x07" * 99,
    }
    config["card"]["test"] = {"accuracy": {"value": float("inf")}}
    config["recipe"]["model"]["name"] = {"a": 1}
    (shelf / "pushed/config.json").write_text(json.dumps(config))
    (card,) = sw.zoo(shelf / "pushed")
    assert card["data"].isprintable() and len(card["data"]) <= 80
    assert all(card[key].isprintable() for key in ("date", "licence", "model"))
    assert len(card["date"]) == 10 and card["value"] is not float("inf")
    config["card"]["parameters"] = "many"
    (shelf / "pushed/config.json").write_text(json.dumps(config))
    assert ": card.parameters is not as stepwell push writes it" in sw.zoo(shelf / "pushed")[0]["problem"]
    json.dumps(card, allow_nan=False)


def test_where_nothing_is(tmp_path, monkeypatch):
    """Without runs/ there are no models; a folder that is named must exist."""
    monkeypatch.chdir(tmp_path)
    assert sw.zoo() == []
    with pytest.raises(UserError, match="nowhere does not exist"):
        sw.zoo("nowhere")


def test_odd_results_are_not_passed_on(shelf):
    """A result of odd types, and one that does not say which weights are its own, in one sentence."""
    with pytest.raises(UserError, match=r"its result.json is damaged"):
        sw.push(shelf / "odd-result", str(shelf / "given"))
    run = shelf / "deep/down/table"
    result = json.loads((run / "result.json").read_text())
    (run / "result.json").write_text(json.dumps({**result, "weights": {}}))
    with pytest.raises(UserError, match=r"does not say which model it is of"):
        sw.push(run, str(shelf / "given"))
    assert not (shelf / "given").exists()


def test_a_copy_lies_beside_its_source(shelf):
    """Not inside it, where the next copy would find it."""
    with pytest.raises(UserError, match="lies inside"):
        sw.pull(str(shelf / "pushed"), shelf / "pushed" / "again")
