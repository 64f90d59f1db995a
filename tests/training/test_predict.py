"""Predictions keep the file's rows, are the network's own, and come from a raw new file."""

import csv
import itertools
import json
import os
import time

import numpy as np
import polars
import pytest
import torch

from stepwell.cli import main
from stepwell.data import tablefile
from stepwell.errors import UserError
from stepwell.training import predict as predicting
from stepwell.training.train import train

TABLE = {"training.updates": 200, "optimizer.lr": 0.01}


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A CSV with numbers, categories, dates, missing values and non-ASCII class names, and its run."""
    folder = tmp_path_factory.mktemp("people")
    generator = np.random.default_rng(0)
    rows = []
    for i in range(400):
        age, city = int(generator.integers(18, 80)), str(generator.choice(["Ulm", "Köln", "São Paulo"]))
        answer = "ja" if age > 45 else "nein, danke" if city == "Köln" else "später"
        rows.append(
            [age if i % 9 else "", city if i % 11 else "NA", f"20{i % 20 + 10}-0{i % 9 + 1}-11", answer]
        )
    with open(folder / "people.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["age", "city", "joined", "answer"], *rows])
    changes = {"data": str(folder / "people.csv"), "data.target": "answer", **TABLE}
    train(None, changes, str(folder / "run"), quiet=True)
    return folder


def test_rows_in_order_with_a_probability_for_each_class(people):
    """Each row of a shuffled file gets what it gets alone; columns are the file's, then ours."""
    table = polars.read_csv(people / "people.csv").drop("answer").sample(fraction=1, shuffle=True, seed=1)
    table.write_csv(people / "new.csv")
    found = predicting.predict(people / "run", people / "new.csv")
    classes = ["ja", "nein, danke", "später"]
    assert found.columns == ["age", "city", "joined", "prediction", *[f"probability_{c}" for c in classes]]
    assert found["city"].to_list() == table["city"].to_list()
    p = found.select([f"probability_{c}" for c in classes]).to_numpy()
    assert np.allclose(p.sum(1), 1) and [classes[k] for k in p.argmax(1)] == found["prediction"].to_list()
    table[17:18].write_csv(people / "one.csv")
    alone = predicting.predict(people / "run", people / "one.csv")
    assert np.allclose(alone.select([f"probability_{c}" for c in classes]).to_numpy(), p[17:18], atol=1e-6)


def test_what_was_learnt_is_predicted(people):
    """On the training file nine of ten answers are right: features and classes are not mixed up."""
    found = predicting.predict(people / "run", people / "people.csv")
    assert (found["prediction"] == found["answer"]).mean() > 0.9


def test_evaluate_on_the_test_part_repeats_the_result(people):
    """`evaluate RUN` gives the numbers of result.json; on a file it gives that file's."""
    result = json.loads((people / "run" / "result.json").read_text())
    assert predicting.evaluate_file(people / "run", None)["test"] == result["test"]
    found = predicting.evaluate_file(people / "run", people / "people.csv")
    right = predicting.predict(people / "run", people / "people.csv")
    assert found["test"]["accuracy"]["value"] == pytest.approx(
        (right["prediction"] == right["answer"]).mean()
    )


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet", ".json", ".jsonl"])
def test_every_kind_of_table_reads_back(people, ending, monkeypatch, capsys):
    """`predict --out` writes each format so that polars reads the same predictions from it."""
    out = people / f"out{ending}"
    words = ["predict", people / "run", people / "people.csv", "--out", out, "--json"]
    monkeypatch.setattr("sys.argv", ["stepwell", *map(str, words)])
    main()
    assert json.loads(capsys.readouterr().out)["rows"] == 400
    readers = {
        ".csv": polars.read_csv,
        ".tsv": lambda path: polars.read_csv(path, separator="\t"),
        ".parquet": polars.read_parquet,
        ".json": polars.read_json,
        ".jsonl": polars.read_ndjson,
    }
    expected = predicting.predict(people / "run", people / "people.csv")
    assert readers[ending](out)["prediction"].to_list() == expected["prediction"].to_list()


def test_numbers_are_predicted_in_their_own_units(tmp_path):
    """A target in thousands, linear in the features, is predicted in thousands."""
    x = np.random.default_rng(0).normal(size=(500, 3))
    y = 20_000 + 3_000 * x[:, 0] - 1_000 * x[:, 2]
    polars.DataFrame({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "price": y}).write_parquet(
        tmp_path / "d.parquet"
    )
    changes = {"data": str(tmp_path / "d.parquet"), "data.target": "price", "model": "linear"}
    changes |= {"training.updates": 2000, "optimizer.lr": 0.01}
    train(None, changes, str(tmp_path / "run"), quiet=True)
    found = predicting.predict(tmp_path / "run", tmp_path / "d.parquet")
    assert np.abs(found["prediction"].to_numpy() - y).max() < 300


def test_text_goes_on_from_its_prompt(tmp_path):
    """A model of a repeating text repeats it; the same seed writes the same."""
    (tmp_path / "abc.txt").write_text("abcdefgh" * 500)
    changes = {"data": str(tmp_path / "abc.txt"), "data.length": 16, "model.layers": 1, "model.width": 32}
    train(None, {**changes, "training.updates": 150, "optimizer.lr": 0.01}, str(tmp_path / "run"), quiet=True)
    (tmp_path / "prompt.txt").write_text("cdefgh")
    written = predicting.continue_text(tmp_path / "run", tmp_path / "prompt.txt", 40, 0.0, seed=1)
    assert written == "cdefgh" + "abcdefgh" * 5
    again = [
        predicting.continue_text(tmp_path / "run", tmp_path / "prompt.txt", 30, 2.0, seed=s) for s in (3, 3)
    ]
    assert again[0] == again[1]
    with pytest.raises(UserError, match=r"\.txt"):
        predicting.predict(tmp_path / "run", tmp_path / "prompt.txt")


def test_dropout_and_batch_norm_are_off(tmp_path):
    """Predictions are in evaluation mode: twice the same, and a sample's do not depend on its neighbours."""
    changes = {"model": "cnn", "model.channels": [4, 8], "model.dropout": 0.5, "training.epochs": 1}
    train(None, changes, str(tmp_path / "run"), quiet=True)
    x = torch.rand(20, 1, 8, 8).numpy() * 16
    np.savez(tmp_path / "x.npz", x=x)
    np.savez(tmp_path / "x5.npz", x=x[5:6])
    all_of_them = predicting.predict(tmp_path / "run", tmp_path / "x.npz")
    assert all_of_them.equals(predicting.predict(tmp_path / "run", tmp_path / "x.npz"))
    one = predicting.predict(tmp_path / "run", tmp_path / "x5.npz")
    assert one["probability_3"][0] == pytest.approx(all_of_them["probability_3"][5], abs=1e-6)


@pytest.mark.parametrize("name", ["prediction", "probability_ja"])
def test_a_column_of_the_files_own_is_never_overwritten(people, name):
    """A file that has a column of a prediction's name is refused, and the refusal names the column."""
    table = polars.read_csv(people / "people.csv").head(3)
    table.with_columns(polars.lit("mine").alias(name)).write_csv(people / "own.csv")
    with pytest.raises(UserError, match=f"'{name}'.*rename"):
        predicting.predict(people / "run", people / "own.csv")
    table.with_columns(polars.lit("mine").alias("probability")).write_csv(people / "own.csv")
    assert predicting.predict(people / "run", people / "own.csv")["probability"].to_list() == ["mine"] * 3


def test_targets_with_a_large_offset_keep_their_differences(tmp_path):
    """Times in seconds since 1970, which float32 rounds to multiples of 128, are learnt to the second."""
    x = np.random.default_rng(0).normal(size=400)
    seconds = 1_700_000_000 + np.round(100 * x)
    polars.DataFrame({"x": x, "when": seconds}).write_csv(tmp_path / "t.csv")
    changes = {"data": str(tmp_path / "t.csv"), "data.target": "when", "model": "linear"}
    changes |= {"training.updates": 2000, "optimizer.lr": 0.01}
    train(None, changes, str(tmp_path / "run"), quiet=True)
    found = predicting.predict(tmp_path / "run", tmp_path / "t.csv")
    error = np.abs(found["prediction"].to_numpy() - seconds)
    assert error.max() < 2
    measured = predicting.evaluate_file(tmp_path / "run", tmp_path / "t.csv")["test"]["mae"]["value"]
    assert measured == pytest.approx(error.mean(), rel=1e-6)


def test_another_runs_model_is_refused(tmp_path):
    """A model of the same shape from another run would answer wrongly without a word: its digest tells."""
    for seed in (0, 1):
        train(None, {"training.updates": 5, "seed": seed}, str(tmp_path / str(seed)), quiet=True)
    (tmp_path / "0/model.safetensors").write_bytes((tmp_path / "1/model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"not the model that result\.json"):
        predicting.evaluate_file(tmp_path / "0", None)
    (tmp_path / "0/result.json").write_bytes((tmp_path / "1/result.json").read_bytes())
    found = [predicting.evaluate_file(tmp_path / k, None)["test"]["loss"] for k in ("0", "1")]
    assert found[0] == found[1]


def test_a_table_larger_than_memory_comes_in_pieces(people, tmp_path, monkeypatch, capsys):
    """No frame is larger than a batch, no column is read whole, and each output is the same to the byte."""
    table = polars.concat([polars.read_csv(people / "people.csv", infer_schema=False)] * 5)
    table.write_csv(tmp_path / "long.csv")
    predicting.predict(people / "run", tmp_path / "long.csv").write_csv(tmp_path / "whole.csv")
    right = predicting.evaluate_file(people / "run", tmp_path / "long.csv")
    monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tablefile, "IN_MEMORY_BYTES", 5_000)
    monkeypatch.setattr(tablefile, "BATCH_CELLS", 2_500)
    read = []
    monkeypatch.setattr(
        tablefile.TableFile,
        "read",
        lambda self, names: read.extend(names) or self.lazy.select(names).collect(),
    )
    found = predicting.predicted(predicting.trained(people / "run"), tmp_path / "long.csv")
    heights = [len(frame) for frame in found.frames]
    assert sum(heights) == found.rows == 2000 and max(heights) == 2_500 // (4 + 4) and not read
    assert predicting.evaluate_file(people / "run", tmp_path / "long.csv") == right and read == ["answer"]
    words = ["predict", people / "run", tmp_path / "long.csv"]
    for out in ([], ["--out", tmp_path / "pieces.csv"], ["--json"]):
        monkeypatch.setattr("sys.argv", ["stepwell", *map(str, [*words, *out])])
        capsys.readouterr()
        main()
        printed = capsys.readouterr().out
        if not out:
            assert printed.encode() == (tmp_path / "whole.csv").read_bytes()
    assert (tmp_path / "pieces.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    answer = json.loads(printed)
    assert list(answer) == ["rows", "file", "predictions"] and len(answer["predictions"]) == 2000


def test_what_takes_long_says_how_far_it_is(people, monkeypatch, capsys):
    """Lines on stderr where that is no terminal, after two seconds; with --json there are none."""
    monkeypatch.setattr(predicting, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(predicting, "batch_rows", lambda columns: 100)
    outputs = predicting._outputs

    def slow(*arguments):
        for block in outputs(*arguments):
            time.sleep(0.05)
            yield block

    monkeypatch.setattr(predicting, "_outputs", slow)
    for words in ([], ["--json"]):
        monkeypatch.setattr(
            "sys.argv", ["stepwell", "predict", *map(str, [people / "run", people / "people.csv"]), *words]
        )
        main()
        assert ("of 400 rows" in capsys.readouterr().err) == (not words)


def test_notes_go_to_stderr_or_into_the_json(people, tmp_path, monkeypatch, capsys):
    """What the model did not know is said last, on stderr; with --json under "notes", if there is any."""
    new = polars.read_csv(people / "people.csv").head(5).with_columns(city=polars.lit("Jena"))
    new.write_csv(tmp_path / "new.csv")
    polars.read_csv(people / "people.csv").head(90).write_csv(tmp_path / "known.csv")
    told = "5 of 5 rows have a value that training did not have, such as 'Jena'"
    for verb, words, keys in (
        ("predict", [], ["rows", "file", "predictions"]),
        ("predict", ["--out", tmp_path / "out.csv"], ["rows", "file"]),
        ("evaluate", [], ["task", "samples", "test"]),
    ):
        for file, json_too in itertools.product(
            (tmp_path / "new.csv", tmp_path / "known.csv"), (False, True)
        ):
            more = [*words, "--json"] if json_too else words
            monkeypatch.setattr("sys.argv", ["stepwell", verb, *map(str, [people / "run", file, *more])])
            main()
            out, err = capsys.readouterr()
            known = file.name == "known.csv"
            if json_too:
                answer = json.loads(out)
                assert list(answer) == keys + ([] if known else ["notes"]) and not err
                assert known or told in answer["notes"][0]
            else:
                assert not err if known else err.startswith("Note: column 'city'") and told in err


def test_evaluate_refuses_rows_it_has_learnt_from(tmp_path):
    """Rows appended to the data, or another split seed, move training rows into the test part: refused."""
    random = np.random.default_rng(0)
    x, y = random.normal(size=(310, 4)).astype(np.float32), random.integers(0, 2, 310)
    np.savez(tmp_path / "d.npz", x=x[:300], y=y[:300])
    changes = {"data": str(tmp_path / "d.npz"), "training.updates": 5}
    train(None, changes, str(tmp_path / "run"), quiet=True)
    before = predicting.evaluate_file(tmp_path / "run", None)
    np.savez(tmp_path / "d.npz", x=x, y=y)
    with pytest.raises(UserError, match="has changed since this run was trained"):
        predicting.evaluate_file(tmp_path / "run", None)
    np.savez(tmp_path / "d.npz", x=x[:300], y=y[:300])
    assert predicting.evaluate_file(tmp_path / "run", None) == before
    recipe = tmp_path / "run/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("split_seed: 0", "split_seed: 1"))
    with pytest.raises(UserError, match=r"data\.split_seed was 0"):
        predicting.evaluate_file(tmp_path / "run", None)


def test_evaluating_the_training_file_is_noted(people, tmp_path):
    """The file that the run was trained on is no test, under another name neither; another file is."""
    (tmp_path / "copy.csv").write_bytes((people / "people.csv").read_bytes())
    assert "learnt from" in predicting.evaluate_file(people / "run", tmp_path / "copy.csv")["notes"][0]
    polars.read_csv(people / "people.csv").head(100).write_csv(tmp_path / "part.csv")
    assert "notes" not in predicting.evaluate_file(people / "run", tmp_path / "part.csv")


def test_a_link_is_written_through_and_special_files_are_refused(people, tmp_path, monkeypatch, capsys):
    """The link stays and its target has the predictions; pipes, devices and names of no text are refused."""
    (tmp_path / "target.csv").write_text("older")
    (tmp_path / "link.csv").symlink_to("target.csv")
    words = ["stepwell", "predict", str(people / "run"), str(people / "people.csv"), "--out"]
    monkeypatch.setattr("sys.argv", [*words, str(tmp_path / "link.csv")])
    main()
    assert (tmp_path / "link.csv").is_symlink()
    assert len(polars.read_csv(tmp_path / "target.csv")) == 400
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "null.csv").symlink_to(os.devnull)
    (tmp_path / "other.csv").symlink_to("blob")
    for name, said in (
        ("pipe.csv", "a pipe"),
        ("null.csv", "a link to /dev/null"),
        ("other.csv", "of another ending"),
        ("o\udcff.csv", "o\\udcff.csv': this name is not UTF-8"),
    ):
        monkeypatch.setattr("sys.argv", [*words, str(tmp_path / name)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2 and said in capsys.readouterr().err
