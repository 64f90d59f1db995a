"""`stepwell inspect` shows signals and gradients by layer, of a recipe before training and of a run."""

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import stepwell as sw
from stepwell import cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def typed(capsys, monkeypatch, tmp_path):
    """Runs `stepwell inspect …` in an empty folder; returns what it printed, its complaint and exit code."""
    monkeypatch.chdir(tmp_path)

    def run(words):
        monkeypatch.setattr(sys, "argv", ["stepwell", "inspect", *words.split()])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        return printed.out, printed.err, code

    return run


def test_the_default_recipe(typed):
    """A row a layer in order, at most 110 columns, a sentence; twice the same."""
    out, err, code = typed("")
    assert (code, err) == (0, "") and typed("")[0] == out
    lines = out.splitlines()
    assert lines[0] == "mlp on digits at the start, model.init=auto; one batch of 64 samples"
    assert [line.split()[:2] for line in lines[3:8]] == [
        [str(k), kind] for k, kind in enumerate(["Linear", "ReLU", "Linear", "ReLU", "Linear"], 1)
    ]
    assert "Signals keep their size" in out and max(map(len, lines)) <= 110


def test_bad_initialization_is_seen_in_the_json(typed):
    """small-normal shrinks, zeros are constant; the numbers are those of `sw.nn.signals` on that batch."""
    found = json.loads(typed("model.init=small-normal model.hidden=[99,99,99,99] --json")[0])
    assert found["forward"]["course"] == found["backward"]["course"] == "shrinks"
    assert found["verdict"].startswith("Signals shrink geometrically") and found["figure"] is None
    assert found["layers"][0]["parameters"] == 64 * 99 + 99
    found = json.loads(typed("model.init=zeros --json")[0])
    assert "constant" in found["verdict"] and found["layers"][0]["sd"] == 0


@pytest.mark.parametrize("words", ["model=cnn", "model=rnn", "model=resnet model.depth=8", "data=diabetes"])
def test_no_false_alarm_on_data(typed, words):
    """Default models on bundled data: nothing is said against them."""
    found = json.loads(typed(f"{words} --json")[0])
    assert found["forward"]["course"] == found["backward"]["course"] == "keeps"
    assert "most" not in found["verdict"] and not found["notes"]


def test_a_run_has_its_trained_weights(typed):
    """The folder's model on the batch its run began with: the same layers, other numbers."""
    sw.train(out="run", quiet=True, **{"training.updates": 200, "optimizer.lr": 0.01})
    trained, start = (json.loads(typed(words)[0]) for words in ("run --json", "--json"))
    assert [row["name"] for row in trained["layers"]] == [row["name"] for row in start["layers"]]
    assert trained["layers"][0]["sd"] != start["layers"][0]["sd"]
    assert trained["title"] == "mlp on digits as trained in run; one batch of 64 samples"


def test_the_figure_of_the_docs_is_todays(typed):
    """docs/images/signals.svg is what its command writes: two panels with labelled logarithmic axes."""
    words = "model.init=small-normal model.hidden=[128,128,128,128,128,128] --plot signals.svg"
    out, _, code = typed(words)
    made = Path("signals.svg").read_text(encoding="utf-8")
    assert code == 0 and out.endswith("Figure: signals.svg\n")
    texts = [
        "".join(t.itertext()) for t in ElementTree.fromstring(made).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert (
        texts.count("standard deviation of the output")
        == texts.count("standard deviation of the gradient")
        == 1
    )
    kept = (ROOT / "docs" / "images" / "signals.svg").read_text(encoding="utf-8")
    shapes = [[t.tag for t in ElementTree.fromstring(text).iter()] for text in (made, kept)]
    assert shapes[0] == shapes[1]  # numbers differ in their last bits from machine to machine


WRONG = {
    "--plot signals.png": "file.svg",
    "--plot nowhere/signals.svg": "no folder nowhere",
    "model.init=hee": "did you mean he",
    "nothing": "'nothing' is neither a recipe file",
    "folder": "folder is not a run",
    "folder optimizer.lr=1": "folder is a run, which has its recipe: give no optimizer.lr=1",
    "data=nowhere.csv": "nowhere.csv",
}


@pytest.mark.parametrize("words", WRONG)
def test_bad_input_is_one_sentence(typed, words):
    """Exit code 2, one sentence, nothing printed or written."""
    Path("folder").mkdir()
    out, err, code = typed(words)
    assert (out, code) == ("", 2) and WRONG[words] in err
    assert err.startswith("stepwell: ") and err.count("\n") == 1 and "Traceback" not in err
    assert [path.name for path in Path().iterdir()] == ["folder"]
