"""`stepwell schedule` shows the rates that a run would have."""

import json
import math
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from stepwell import cli, schedules
from stepwell.schedules.configs import SCHEDULES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def typed(capsys, monkeypatch, tmp_path):
    """Runs `stepwell schedule …` in an empty folder; returns what it printed, its complaint and exit code."""
    monkeypatch.chdir(tmp_path)

    def run(words):
        monkeypatch.setattr(sys, "argv", ["stepwell", "schedule", *words.split()])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        return printed.out, printed.err, code

    return run


def test_without_a_name_all_are_listed(typed):
    """Every name with what it does and its keys, as text and as JSON."""
    out, _, code = typed("")
    assert code == 0 and [line.split()[0] for line in out.splitlines()[::2]] == list(SCHEDULES)
    rows = json.loads(typed("--json")[0])["schedules"]
    assert {row["name"]: sorted(row["keys"]) for row in rows} == {
        name: sorted(set(kind.model_fields) - {"name", "height", "low_momentum"})  # the last two are off
        for name, kind in SCHEDULES.items()
    }


@pytest.mark.parametrize(
    "words", ["cosine warmup=0.1 end=0.01", "cosine schedule.warmup=0.1 schedule.end=0.01"]
)
def test_json_has_the_rate_of_every_update(typed, words):
    """Keys with and without the section's name; rates are those of the function, as shares of the highest."""
    found = json.loads(typed(f"{words} --updates 50 --json")[0])
    wanted = schedules.warm_up(schedules.cosine(1.0, 45, 0.01), 5)
    assert found["rates"] == pytest.approx([wanted(t) for t in range(50)], rel=1e-12)
    assert (found["name"], found["updates"], found["lr"], found["figure"]) == ("cosine", 50, None, None)
    assert found["keys"] == {"warmup": 0.1, "end": 0.01}
    assert "warmup=0 end=1e-09\n" in typed("exponential end=1e-9")[0]


@pytest.mark.parametrize("key", ["lr", "optimizer.lr"])
def test_table_and_curve(typed, key):
    """A row each tenth of the run with the rate there, in units of lr where it is given, and a curve."""
    out, _, code = typed(f"linear warmup=0 {key}=0.5 --updates 200")
    rows = [line.split() for line in out.splitlines()[4:15]]
    assert code == 0
    assert rows == [[str(t), f"{0.5 * (1 - t / 200):.4g}"] for t in [*range(0, 200, 20), 199]]
    assert "learning rate\n" in out and "█" in out and "     0.5 |" in out


def test_the_figure_of_the_docs_is_todays(typed):
    """docs/images/schedules.svg is what its command writes: twelve panels with labelled axes."""
    out, _, code = typed("--plot schedules.svg")
    made = Path("schedules.svg").read_text(encoding="utf-8")
    assert code == 0 and out.endswith("Figure: schedules.svg\n")
    assert made == (ROOT / "docs" / "images" / "schedules.svg").read_text(encoding="utf-8")
    words = [text.text for text in ElementTree.fromstring(made).iter("{http://www.w3.org/2000/svg}text")]
    assert [word for word in words if word in SCHEDULES] == list(SCHEDULES)
    assert words.count("update") == words.count("learning rate / optimizer.lr") == len(SCHEDULES)


def test_one_figure_has_one_curve(typed):
    """A run of a million updates is drawn from some hundreds of them."""
    assert typed("one-cycle lr=0.001 --updates 1000000 --plot one.svg")[2] == 0
    root = ElementTree.fromstring(Path("one.svg").read_text())
    lines = list(root.iter("{http://www.w3.org/2000/svg}polyline"))
    assert len(lines) == 1 and 300 < len(lines[0].attrib["points"].split()) < 1000


# What is typed → a part of the answer.
WRONG = {
    "cosin": "did you mean cosine",
    "cosine wamup=0.1": "did you mean schedule.warmup",
    "cosine warmup=2": "below 1",
    "cosine power=2": "belongs to polynomial",
    "cosine linear": "'linear' is not key=value",
    "cosine schedule=linear": "schedule.name is given twice",
    "cosine warmup=0.1 schedule.warmup=0.2": "schedule.warmup is given twice",
    "cosine optimizer.beta1=0.5": "optimizer.beta1 does not change",
    "cosine lr=-1": "optimizer.lr=-1",
    "cosine lr=fast": "optimizer.lr=fast",
    "warmup=0.1": "give a schedule's name first",
    "cyclical height=0.5": "height has no effect",
    "cosine --updates 1": "--updates",
    "cosine --updates many": "--updates",
    "cosine --plot rate.png": "file.svg",
    "cosine --plot nowhere/rate.svg": "no folder nowhere",
    "--plot folder.svg": "folder of this name",
    "cosine --plot": "--plot",
}


@pytest.mark.parametrize("words", WRONG)
def test_bad_input_is_one_sentence(typed, words):
    """Exit code 2, one sentence, nothing printed or written."""
    Path("folder.svg").mkdir()
    out, err, code = typed(words)
    assert (out, code) == ("", 2) and WRONG[words] in err
    assert err.startswith("stepwell: ") and err.count("\n") == 1 and "Traceback" not in err
    assert [path.name for path in Path().iterdir()] == ["folder.svg"]


def test_rates_are_those_of_a_run(typed):
    """The same rates as those that a run with this recipe writes to metrics.jsonl."""
    import stepwell as sw

    keys = {"schedule": "restarts", "schedule.cycles": 2, "optimizer.lr": 0.01}
    budget = {"training.updates": 20, "training.log_every": 1, "data": "iris"}
    sw.train(out="run", quiet=True, **keys, **budget)
    shown = json.loads(typed("restarts cycles=2 lr=0.01 --updates 20 --json")[0])["rates"]
    lines = map(json.loads, Path("run/metrics.jsonl").read_text().splitlines())
    logged = {line["update"]: line["hyperparameters"]["lr"] for line in lines if "hyperparameters" in line}
    assert len(logged) == 20
    assert all(math.isclose(shown[update - 1], lr, rel_tol=1e-6) for update, lr in logged.items())


def test_one_cycles_momentum_is_shown(typed):
    """A column beside the rate, from the default optimizer's β1 down and back; in JSON for every update."""
    words = "one-cycle low_momentum=0.6 --updates 40"
    wanted = schedules.one_cycle_momentum(40, 0.3, 0.9, 0.6)
    rows = [line.split() for line in typed(words)[0].splitlines()[3:15]]
    assert rows[0][-1] == "momentum"
    assert [row[2] for row in rows[1:]] == [f"{wanted(t):.4g}" for t in [*range(0, 40, 4), 39]]
    found = json.loads(typed(f"{words} --json")[0])
    assert found["momenta"] == pytest.approx([wanted(t) for t in range(40)], rel=1e-12)
    assert json.loads(typed("one-cycle --updates 40 --json")[0])["momenta"] is None
