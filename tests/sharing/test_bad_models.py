"""Whatever is wrong with a model to begin with, push or pull: one plain sentence, nothing half written."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from test_bad_input import _assert_one_sentence as assert_one_sentence
from test_bad_input import _content as content
from test_bad_input import _run as run

import stepwell as sw
from stepwell.training import checkpoint, pushed


def _edit(folder: str, **changes) -> None:
    path = Path(folder, "config.json")
    config = json.loads(path.read_text())
    for key, value in changes.items():
        place, *inner = key.split("__")
        target = config
        for step in inner:
            target, place = target[place], step
        target[place] = value
    path.write_text(json.dumps(config))


def _forge(folder: str, about: dict | None = None, **model) -> None:
    """Weights, digest and config that agree with each other, but not with reason."""
    path, changes = Path(folder, "model.safetensors"), about or {}
    tensors, own = checkpoint.read(path)
    own |= changes
    own["recipe"]["model"] |= model
    digest = checkpoint.write(path, tensors, own)
    _edit(folder, recipe__model=own["recipe"]["model"], digest=digest, **changes)


@pytest.fixture(scope="module")
def place(runs, tmp_path_factory):
    """A folder with whole and damaged models; the tests run in it."""
    folder, before = tmp_path_factory.mktemp("models"), os.getcwd()
    os.chdir(folder)
    quick = {"training.updates": 2, "model.hidden": [6, 4]}
    x, y = np.random.default_rng(0).normal(size=(60, 1, 8, 8)).astype("f4"), np.arange(60) % 10
    np.savez("ten.npz", x=x, y=y)
    np.savez("seven.npz", x=x, y=y % 7)
    np.savez("wide.npz", x=np.concatenate([x, x], -1), y=y)
    Path("table.csv").write_bytes((runs / "table.csv").read_bytes())
    sw.train({**quick, "data": "seven.npz"}, out="seven", quiet=True)
    sw.train({"data": "seven.npz", "model": "linear", "training.updates": 1}, out="linear", quiet=True)
    shutil.copytree(runs / "runs" / "text", "text")
    for name in ("unfinished", "bad-weights", "no-recipe"):
        shutil.copytree("seven", name)
    Path("unfinished/result.json").unlink()
    Path("no-recipe/recipe.yaml").unlink()
    damaged = bytearray(Path("bad-weights/model.safetensors").read_bytes())
    damaged[-100] ^= 1
    Path("bad-weights/model.safetensors").write_bytes(damaged)
    sw.push("seven", "pushed")
    names = ("tampered", "cut", "no-card", "bad-card", "list-card", "other-classes", "other-width", "huge")
    for name in (*names, "deep", "old", "other-digest", "no-weights", "million", "odd", "elsewhere"):
        shutil.copytree("pushed", name)
    damaged = bytearray(Path("tampered/model.safetensors").read_bytes())
    damaged[-100] ^= 1
    Path("tampered/model.safetensors").write_bytes(damaged)
    os.truncate("cut/model.safetensors", 1000)
    Path("no-card/config.json").unlink()
    Path("bad-card/config.json").write_text('{"library_name": "stepw')
    Path("list-card/config.json").write_text("[]")
    Path("deep/config.json").write_text("[" * 100_000)
    _edit("other-classes", classes=list("abcdefghij"))
    _edit("other-width", recipe__model__hidden=[5, 4])
    _edit("old", format=99)
    _edit("other-digest", digest="0" * 32)
    Path("no-weights/model.safetensors").unlink()
    _forge("huge", hidden=[65536, 65536])
    _forge("million", hidden=[1] * 10**6)
    _forge("odd", dropout=7)
    for name, about in FORGED.items():
        shutil.copytree("pushed", name)
        _forge(name, about)
    _edit("elsewhere", card=["no mapping"])
    for name, changes in STRANGE_CARDS.items():
        shutil.copytree("pushed", name)
        _edit(name, **changes)
        Path(name, "README.md").unlink()  # so that it would be made of config.json
    Path("empty").mkdir()
    Path("full").mkdir()
    Path("full/thing").write_text("mine")
    Path("file").write_text("a file")
    yield folder
    os.chdir(before)


# A folder's name → what of its config.json is not as push writes it.
STRANGE_CARDS: dict[str, dict] = {
    "no-versions": {"versions": None},
    "empty-card": {"card": {}},
    "no-data": {"card__data": {}},
    "many": {"card__parameters": "many"},
    "huge-count": {"card__parameters": 10**400},
    "date": {"card__date": 7},
    "test-list": {"card__test": [1]},
    "nested": {"recipe__seed": json.loads("[" * 90 + "]" * 90)},
}
# A folder's name → what its weights' file says, with the digest that belongs to it.
FORGED: dict[str, dict] = {
    "no-raw": {"preparation": {"source": "npz"}},
    "no-classes": {"classes": []},
    "no-source": {"preparation": {}},
    "other-kind": {"kind": "sequence"},
    "other-task": {"task": "regression"},
}
FROM = "train data=ten.npz model.from="
LINEAR = "train data=seven.npz model.from=linear"
CASES = {
    # heads, frozen layers
    FROM + "seven model.freeze=3": "nothing is left to train",
    FROM + "seven model.freeze=99": "nothing is left to train",
    LINEAR + " model.freeze=1": "nothing is left to train",
    LINEAR + " model.freeze=body": "nothing but its head",
    LINEAR + " model.unfreeze=0.5": "only one layer",
    FROM + "seven model.freeze=-1": "give body, or how many layers",
    FROM + "seven model.freeze=all": "give body, or how many layers",
    FROM + "seven model.freeze=body model.unfreeze=0.5": "contradict each other",
    FROM + "seven model.layer_rates=1": "model.layer_rates=1 must be below 1",
    FROM + "seven model.unfreeze=0": "model.unfreeze=0 must be above 0",
    "train model.freeze=body": "model.from",
    "train model.unfreeze=0.5": "model.from",
    "train model.layer_rates=half": "a number",
    # what to begin with
    FROM + "linear": "nothing but its head",
    FROM + "unfinished": "stepwell train --resume",
    FROM + "bad-weights": "damaged",
    FROM + "nowhere": "nowhere",
    FROM + "file": "file",
    FROM + "empty": "recipe.yaml",
    FROM + "no-recipe": "recipe.yaml",
    FROM + "text": "text in pieces of 8 characters",
    FROM + "hf:me/mine": "pip install huggingface_hub",
    FROM + "seven --out seven": "already holds a run",
    FROM + "seven model=cnn": "model.name",
    FROM + "seven model.hidden=[64]": "model.hidden",
    FROM + "seven model.hiden=[64]": "model.hidden",
    FROM + "tampered": "damaged",
    FROM + "other-width": "does not fit",
    "train data=wide.npz model.from=seven": "1×8×8",
    "train data=iris model.from=seven": "4 features",
    "train model.frm=seven": "model.from",
    # push
    "push seven pushed": "already",
    "push seven full": "already",
    "push seven seven": "already",
    "push seven file": "file",
    "push seven file/below": "file/below",
    "push seven /proc/nothing": "/proc/nothing",
    "push seven hf:me/mine": "pip install huggingface_hub",
    "push seven new --licence <b>": "--licence",
    "push unfinished new": "not finished",
    "push bad-weights new": "damaged",
    "push nowhere new": "nowhere",
    "push empty new": "recipe.yaml",
    "push tampered new": "damaged",
    "push seven": "TO",
    # pull
    "pull empty new": "empty",
    "pull nowhere new": "nowhere",
    "pull file new": "file",
    "pull seven new": "run folder",
    "pull pushed full": "already",
    "pull pushed pushed": "already",
    "pull pushed /proc/nothing": "/proc/nothing",
    "pull no-card new": "config.json",
    "pull bad-card new": "bad-card/config.json is damaged",
    "pull list-card new": "not of Stepwell",
    "pull deep new": "damaged",
    "pull elsewhere new": "card",
    "pull old new": "version",
    "pull tampered new": "tampered/model.safetensors is damaged",
    "pull cut new": "damaged",
    "pull no-weights new": "no such file",
    "pull other-classes new": "(classes differs)",
    "pull other-width new": "(recipe.model.hidden differs)",
    "pull other-digest new": "digest",
    "pull huge new": "other names or shapes",
    "pull million new": "not the model",
    "pull odd new": "its model is not one of this version",
    **{
        f"{verb} {name} new": f"{name}/config.json is damaged"
        for name in STRANGE_CARDS
        for verb in ("pull", "push")
    },
    **{f"predict {name} ten.npz": "is not the model of a run" for name in FORGED},
    # the others
    "zoo nowhere": "nowhere",
    "zoo file": "file",
    "predict tampered ten.npz": "damaged",
    "predict no-card ten.npz": "recipe.yaml",
    "evaluate pushed": "name a file",
    "report pushed": "not a run folder",
    "train --resume pushed": "recipe.yaml",
}


@pytest.mark.parametrize("typed", CASES, ids=lambda typed: typed[:60])
def test_bad_input(typed, place, monkeypatch, capsys):
    """One plain sentence that names the place, exit code 2, an empty stdout, and no file changed."""
    before = content(place)
    code, out, err = run(monkeypatch, capsys, typed.split(" "))
    assert_one_sentence(code, out, err)
    assert CASES[typed] in err
    assert content(place) == before


def test_a_card_is_not_read_without_end(place, monkeypatch):
    """A config.json longer than any that push writes is refused by its size."""
    monkeypatch.setattr(pushed, "LARGEST", 100)
    with pytest.raises(sw.UserError, match="far more"):
        sw.pull("pushed", "new")


def test_no_memory_is_asked_for_by_a_forged_model(place):
    """A model of 4 billion weights in a file of kilobytes is refused before any of them has a place."""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), limit[1]))
    try:
        with pytest.raises(sw.UserError, match="other names or shapes"):
            sw.pull("huge", "new")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limit)
