"""A pushed model is the run's to the bit, whole or not there, and tells nothing of this machine."""

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import polars
import pytest
import torch
import yaml

import stepwell as sw
from stepwell.errors import UserError
from stepwell.training import checkpoint, export, files, generate, predict, pushed

PLACES = {"table": "table.csv", "numbers": "numbers.csv", "arrays": "arrays.npz", "images": "images"}
KINDS = [*PLACES, "text"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_pulled_model_is_the_runs(kind, runs, tmp_path):
    """Pushed, pulled, pushed and pulled again: the same weights, preparation and predictions, bit for bit."""
    run = runs / "runs" / kind
    told = sw.push(run, tmp_path / "pushed", licence="mit")
    sw.pull(tmp_path / "pushed", tmp_path / "pulled")
    sw.push(tmp_path / "pulled", tmp_path / "again")
    for folder in ("pushed", "pulled", "again"):
        content = {p.name: p.read_bytes() for p in (tmp_path / folder).iterdir()}
        assert content == {p.name: p.read_bytes() for p in (tmp_path / "pushed").iterdir()}
        assert content.keys() == set(pushed.FILES)
    (mine, about), (own, said) = (checkpoint.read(f / "model.safetensors") for f in (tmp_path / "again", run))
    assert about == said and all(torch.equal(mine[name], own[name]) for name in own)
    assert told["digest"] == sw.resume(run, quiet=True)["weights"]["digest"]
    a, b = predict.trained(run), predict.trained(tmp_path / "again")
    if kind == "text":
        x = torch.zeros(1, 3, dtype=torch.int64)
        texts = [generate.generate(model.network, x, 8, 20, 0.8, 0) for model in (a, b)]
        assert torch.equal(*texts)
    else:
        file = runs / PLACES[kind]
        assert predict.predict(run, file).equals(predict.predict(tmp_path / "again", file))


def test_the_data_need_not_be_there(runs, tmp_path):
    """Every verb for a trained model works where only the pulled folder is; `evaluate` wants a file."""
    sw.push(runs / "runs" / "table", tmp_path / "model")
    new = tmp_path / "new.csv"
    new.write_bytes((runs / "table.csv").read_bytes())
    found = predict.evaluate_file(tmp_path / "model", new)
    assert found["test"] == predict.evaluate_file(runs / "runs" / "table", runs / "table.csv")["test"]
    export.export(tmp_path / "model", tmp_path / "model.pt2")
    result = sw.train(
        data=str(new),
        out=str(tmp_path / "run"),
        quiet=True,
        **{"model.from": str(tmp_path / "model"), "training.updates": 2},
    )
    assert result["from"]["digest"] == json.loads((tmp_path / "model/config.json").read_text())["digest"]
    with pytest.raises(UserError, match="no data with it"):
        predict.evaluate_file(tmp_path / "model", None)


def test_load_predicts_from_raw_inputs(runs):
    """`sw.load` is a torch module whose outputs are those of `predict`."""
    model = sw.load(runs / "runs" / "numbers")
    table = predict.predict(runs / "runs" / "numbers", runs / "numbers.csv")
    x = table.select("x", "z").cast(polars.Float32).to_torch()
    with torch.no_grad():
        assert model(x)[:, 0].tolist() == table["prediction"].to_list()
    assert model.targets == ["cost"] and sw.load(runs / "runs" / "table").classes == ["a", "b"]


def test_nothing_of_this_machine_is_told(runs, tmp_path):
    """No file of a pushed model holds a path: of data and source it has the names."""
    keys = {
        "data": str(runs / "table.csv"),
        "model.from": str(runs / "runs" / "table"),
        "training.updates": 2,
    }
    sw.train(keys, out=str(tmp_path / "run"), quiet=True)
    sw.push(tmp_path / "run", tmp_path / "model")
    for file in (tmp_path / "model").iterdir():
        assert not any(str(place).encode() in file.read_bytes() for place in (runs, tmp_path))
    recipe = json.loads((tmp_path / "model/config.json").read_text())["recipe"]
    assert (recipe["data"]["name"], recipe["model"]["from"]) == ("table.csv", "table")


def test_the_front_matter_is_the_hubs(runs, tmp_path):
    """YAML with licence, library, task and the result as a model index; unknown where no licence is given."""
    sw.push(runs / "runs" / "images", tmp_path / "model")
    text = (tmp_path / "model/README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    accuracy = sw.resume(runs / "runs" / "images", quiet=True)["test"]["accuracy"]["value"]
    assert (front["license"], front["pipeline_tag"]) == ("unknown", "image-classification")
    result = front["model-index"][0]["results"][0]
    assert result["dataset"]["name"] == "images" and result["metrics"][0]["value"] == accuracy
    assert "Ask before you use it" in text


def test_names_in_the_card_are_no_markup(runs, tmp_path):
    """A class called like HTML, a table row or a heading stays a text of one line."""
    rows = [f"{i % 7},{('<b>|x', '# `y`')[i % 2]}" for i in range(40)]
    (tmp_path / "odd.csv").write_text("\n".join(["x,label", *rows, ""]))
    keys = {"data": str(tmp_path / "odd.csv"), "training.updates": 2}
    sw.train(keys, out=str(tmp_path / "run"), quiet=True)
    sw.push(tmp_path / "run", tmp_path / "model")
    text = (tmp_path / "model/README.md").read_text().split("## Data")[1].split("##")[0]
    assert "<b>" not in text and r"&lt;b&gt;\|x" in text and r"\# \`y\`" in text


def test_a_strangers_texts_are_no_markup(runs, tmp_path):
    """Every text of a config.json that `pull` makes a card of is one line without markup; a fence holds."""
    sw.push(runs / "runs" / "table", tmp_path / "model")
    (tmp_path / "model/README.md").unlink()
    path, evil = tmp_path / "model/config.json", "\n# <img src=x> [a](b) ```` ~~~"
    config = json.loads(path.read_text())
    config["card"] |= {"name": evil, "date": evil, "licence": evil, "test": {evil: 0.5, f"{evil}/{evil}": 1}}
    config["card"]["data"]["name"] = config["versions"]["stepwell"] = evil
    config["recipe"]["model"]["from"] = config["recipe"]["training"]["note"] = evil
    path.write_text(json.dumps(config))
    sw.pull(tmp_path / "model", tmp_path / "got")
    text = (tmp_path / "got/README.md").read_text()
    _, front, text = text.split("---\n", 2)
    assert yaml.safe_load(front)["license"].startswith("# <img")
    before, inside, after = re.split(r"(?m)^`````(?:yaml)?$", text)
    assert yaml.safe_load(inside)["training"]["note"] == evil and "Nothing in this folder is run" in after
    outside = re.sub(r"(?ms)^```.*?^```$", "", before)  # our own examples
    assert before.count("```sh") == 1 and not re.search(r"<img|(?<!\\)[\[\]`~]", outside)
    own = {"## Result", "## Use", "## Data", "## Training"}
    assert len(set(re.findall("(?m)^#.*", outside)) - own) == 1  # the title


def killed(moment: str, verb: str, *places) -> int:
    """The exit status of a process that is killed at this moment of a push or pull."""
    child = os.fork()
    if not child:
        place, name = {
            "text": (files, "write_text"),
            "rename": (os, "rename"),
            "sync": (files, "sync_folder"),
        }[moment]
        setattr(place, name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        try:
            getattr(sw, verb)(*places)
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("moment", ["text", "sync", "rename"])
@pytest.mark.parametrize("verb", ["push", "pull"])
def test_killed_in_the_middle_leaves_nothing_half_written(verb, moment, runs, tmp_path):
    """The folder is not there after SIGKILL; the next push or pull works and removes what was left."""
    source = runs / "runs" / "table"
    if verb == "pull":
        sw.push(source, tmp_path / "source")
        source = tmp_path / "source"
        (source / "README.md").unlink()  # so that a text is written too
    to = tmp_path / "new" / "model"
    assert killed(moment, verb, source, to) == signal.SIGKILL
    assert not to.exists() and list(to.parent.iterdir())
    (sw.push if verb == "push" else sw.pull)(source, to)
    assert [p.name for p in to.parent.iterdir()] == ["model"] and predict.trained(to).classes == ["a", "b"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_stopped_in_the_middle_leaves_no_trace(error, runs, tmp_path, monkeypatch):
    """Ctrl-C and a full disk remove what was written, and the folders that were made for it."""

    def fail(*_, **__):
        raise error

    monkeypatch.setattr("stepwell.training.files.write_text", fail)
    with pytest.raises((KeyboardInterrupt, UserError)):
        sw.push(runs / "runs" / "table", tmp_path / "a" / "b" / "model")
    assert list(tmp_path.iterdir()) == []


HUB = """
import os, pathlib, shutil
ROOT = pathlib.Path(os.environ["FAKE_HUB"])
class HfApi:
    def repo_exists(self, name): return (ROOT / name).exists()
    def create_repo(self, name): (ROOT / name).mkdir(parents=True)
    def upload_folder(self, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, ROOT / repo_id, dirs_exist_ok=True)
    def list_repo_files(self, name):
        if not (ROOT / name).exists(): raise RuntimeError("404: no such model\\nsecond line")
        return os.listdir(ROOT / name)
def hf_hub_download(name, file): return str(ROOT / name / file)
"""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A stand-in for `huggingface_hub` that keeps models in a folder."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake/huggingface_hub.py").write_text(HUB)
    monkeypatch.syspath_prepend(str(tmp_path / "fake"))
    monkeypatch.setenv("FAKE_HUB", str(tmp_path / "hub"))
    yield tmp_path / "hub"
    sys.modules.pop("huggingface_hub", None)


def test_the_hub_is_a_folder_elsewhere(hub, runs, tmp_path):
    """Push, pull and model.from take hf:ORG/NAME; what else lies there is not fetched."""
    run = runs / "runs" / "table"
    sw.push(run, "hf:me/mine", licence="mit")
    (hub / "me/mine/run_me.py").write_text("raise SystemExit")
    sw.pull("hf:me/mine", tmp_path / "got")
    assert sorted(p.name for p in (tmp_path / "got").iterdir()) == sorted(pushed.FILES)
    keys = {"model.from": "hf:me/mine", "data": str(runs / "table.csv"), "training.updates": 2}
    result = sw.train(keys, out=str(tmp_path / "run"), quiet=True)
    assert (
        result["from"]["model"] == "hf:me/mine"
        and "head, since the classes are the same" in result["from"]["notes"][0]
    )
    with pytest.raises(UserError, match="in the hub already"):
        sw.push(run, "hf:me/mine")
    with pytest.raises(UserError, match="404: no such model"):
        sw.pull("hf:me/other", tmp_path / "other")
    with pytest.raises(UserError, match="no name in the hub"):
        sw.pull("hf:../../etc", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_a_failed_upload_leaves_is_filled(hub, runs, tmp_path, monkeypatch):
    """After an upload that failed, the same push fills the empty repository; one with a file is taken."""
    import huggingface_hub  # type: ignore[import-not-found]  # the stand-in

    def cut(*_, **__):
        (hub / "me/mine/.gitattributes").write_text("of the hub")
        raise RuntimeError("connection lost")

    run = runs / "runs" / "table"
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.HfApi, "upload_folder", cut)
        with pytest.raises(UserError, match="connection lost"):
            sw.push(run, "hf:me/mine")
    sw.push(run, "hf:me/mine")
    assert {p.name for p in (hub / "me/mine").iterdir()} == {*pushed.FILES, ".gitattributes"}
    (hub / "me/other").mkdir()
    (hub / "me/other/notes.txt").write_text("mine")
    with pytest.raises(UserError, match="in the hub already"):
        sw.push(run, "hf:me/other")


def test_no_code_comes_with_a_model(runs, tmp_path, monkeypatch):
    """A function of one's own is not pushed, and not imported for a forged folder with a right digest."""
    (tmp_path / "evil_model.py").write_text(
        "open('ran', 'w')\nfrom torch import nn\ndef build(s, o): return nn.Linear(2, o)\n"
    )
    monkeypatch.chdir(tmp_path)
    run = runs / "runs" / "table"
    sw.push(run, "model")
    tensors, about = checkpoint.read(Path("model/model.safetensors"))
    about["recipe"]["model"] = {"name": "evil_model:build", "arguments": {}}
    digest = checkpoint.write(Path("model/model.safetensors"), tensors, about)
    config = json.loads(Path("model/config.json").read_text())
    config["recipe"]["model"], config["digest"] = about["recipe"]["model"], digest
    Path("model/config.json").write_text(json.dumps(config))
    for use in (
        predict.trained,
        lambda m: sw.pull(m, "got"),
        lambda m: sw.train({"model.from": m}, out="run"),
    ):
        with pytest.raises(UserError, match="does not run"):
            use("model")
    assert not os.path.exists("ran") and "evil_model" not in sys.modules
    shutil.rmtree("model")
    sw.train(
        {"model": "evil_model:build", "data": str(runs / "table.csv"), "training.updates": 1},
        out="own",
        quiet=True,
    )
    with pytest.raises(UserError, match="your own code"):
        sw.push("own", "model")
    sw.train(
        {"model.from": "own", "data": str(runs / "table.csv"), "training.updates": 1}, out="tuned", quiet=True
    )
    sys.modules.pop("evil_model")
