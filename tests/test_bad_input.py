"""Whatever is wrong, the user gets one plain sentence and exit code 2, and nothing is half written.

All bad files lie in one folder, made once; every case runs in it and must leave it as it was.
"""

import fcntl
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from stepwell import cli
from stepwell.training import train

QUICK = {"training.updates": 4, "training.checkpoint_every": 2}


def _table(path: str, header: str, rows: list[str], encoding: str = "utf-8") -> None:
    Path(path).write_bytes("\n".join([header, *rows, ""]).encode(encoding))


def _rows(count: int = 40) -> list[str]:
    return [f"{i % 7},{i % 5 + 0.5},{'ab'[i % 2]}" for i in range(count)]


def _tables() -> None:
    rows = _rows()
    _table("good.csv", "x,y2,label", rows)
    _table("classless.csv", "x,y2,z", rows)
    _table("one-class.csv", "x,label", [f"{i},a" for i in range(30)])
    _table("nan-target.csv", "x,target", [f"{i},{'' if i == 7 else i * 1.5}" for i in range(30)])
    _table("constant.csv", "x,target", [f"{i},3.5" for i in range(30)])
    _table("inf.csv", "x,label", [f"{'inf' if i == 3 else i},{'ab'[i % 2]}" for i in range(30)])
    _table("ragged.csv", "x,y2,label", [*rows[:9], "1,2,a,4,5", *rows[9:]])
    _table("short-row.csv", "x,y2,label", [*rows[:9], "1", *rows[9:]])
    _table("latin1.csv", "größe,label", [f"{i},{'ä' if i % 2 else 'ö'}" for i in range(30)], "latin-1")
    _table("twice.csv", "x,x,label", rows)
    _table("header-only.csv", "x,label", [])
    _table("three.csv", "x,label", ["1,a", "2,b", "3,a"])
    _table("only-target.csv", "label", list("ab" * 20))
    _table("no-x.csv", "y2", ["1", "2"])
    _table("text-in-number.csv", "x,y2", ["1,2", "many,3"])
    _table("unknown-class.csv", "x,y2,label", ["1,2,a", "1,2,zebra"])
    Path("empty.csv").write_bytes(b"")
    Path("binary.csv").write_bytes(bytes(range(256)) * 4)
    Path("broken.parquet").write_bytes(b"PAR1 no more than this")


def _arrays() -> None:
    x, y = np.random.default_rng(0).normal(size=(60, 6)).astype("f4"), np.arange(60) % 3
    np.savez("good.npz", x_train=x, y_train=y)
    np.savez("own-test.npz", x_train=x, y_train=y, x_test=x[:9], y_test=y[:9])
    np.savez("own-parts.npz", x=x, y=y, x_test=x[:9], y_test=y[:9], x_validation=x[:9], y_validation=y[:9])
    np.savez("no-y.npz", x_train=x)
    np.savez("lengths.npz", x_train=x, y_train=y[:50])
    np.savez("nan.npz", x_train=np.where(np.arange(360).reshape(60, 6) == 100, np.nan, x), y_train=y)
    np.savez("nan-y.npz", x_train=x, y_train=np.where(y == 1, np.nan, y))
    np.savez("one-class.npz", x_train=x, y_train=y * 0)
    np.savez("objects.npz", x_train=np.array([{}] * 9), y_train=y[:9])
    np.savez("other.npz", x=x[:, :4])
    np.savez("images.npz", x_train=np.zeros((30, 8, 8), np.uint8), y_train=np.arange(30) % 2)
    Path("cut.npz").write_bytes(Path("good.npz").read_bytes()[:700])
    Path("not.npz").write_text("no zip")


def _image_folders() -> None:
    def image(path: str, side: int = 8) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(len(path)).integers(0, 255, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(path)

    for i in range(12):
        for folder in ("sizes", "cut", "own/train", "one"):
            image(f"{folder}/a/{i}.png")
            if folder != "one":
                image(f"{folder}/b/{i}.png")
    image("sizes/b/99.png", 9)
    image("own/test/a/0.png")
    image("own/test/b/0.png")
    Path("cut/b/3.png").write_bytes(Path("cut/b/3.png").read_bytes()[:120])
    Path("no-images/a").mkdir(parents=True)
    Path("no-images/a/notes.md").write_text("nothing")
    Path("empty-folder").mkdir()
    Path("broken.zip").write_bytes(b"PK\x03\x04 no more")


def _recipes() -> None:
    for name, text in {
        "bad.yaml": "optimizer: {lr: 0.1\n",
        "twice.yaml": "optimizer:\n  lr: 0.1\n  lr: 0.2\n",
        "list.yaml": "- optimizer\n",
        "section-list.yaml": "optimizer: [1, 2]\n",
        "plain-list.yaml": "training: [1]\n",
        "word.yaml": "hello\n",
        "tag.yaml": "seed: !!python/object/apply:os.system ['true']\n",
        "deep.yaml": "model:\n  hidden: " + "[" * 3000 + "]" * 3000 + "\n",
        "mapping-key.yaml": "? [a, b]\n: 1\n",
        "typo.yaml": "optimiser:\n  lr: 0.1\n",
        "number-key.yaml": "1: 2\n",
        "control.yaml": "seed: \x07\n",
        "deep-key.yaml": "optimizer:\n  lr:\n    deep: {er: 1}\n",
    }.items():
        Path(name).write_text(text)
    Path("latin1.yaml").write_bytes("data: größe\n".encode("latin-1"))
    Path("empty.txt").write_bytes(b"")
    Path("short.txt").write_text("too short")
    Path("one-letter.txt").write_text("a" * 5000)
    Path("latin1.txt").write_bytes("größer ".encode("latin-1") * 900)
    Path("notes.md").write_text("# notes")
    Path("file").write_text("a file")
    Path("folder.csv").mkdir()


def _models() -> None:
    Path("mymodels.py").write_text(
        "from torch import nn\n"
        "def wrong(shape, outputs): return nn.Sequential(nn.Flatten(), nn.Linear(64, outputs + 1))\n"
        "def flat(shape, outputs): return nn.Linear(3, outputs)\n"
        "def raises(shape, outputs): raise RuntimeError('first line\\nsecond line')\n"
        "def number(shape, outputs): return 7\n"
        "def empty(shape, outputs): return nn.Flatten()\n"
        "class Pair(nn.Module):\n"
        "    def forward(self, x): return x, x\n"
        "def pair(shape, outputs): return Pair()\n"
    )
    Path("brokenmodel.py").write_text("import nothing_of_this_name\n")
    Path("syntaxmodel.py").write_text("def (\n")


def _runs() -> None:
    train.train(None, {**QUICK, "model.hidden": [64, 64]}, "run", quiet=True)
    train.train(None, {**QUICK, "data": "good.csv"}, "table", quiet=True)
    Path("text.txt").write_text("so it goes, and on it goes. " * 90)
    text = {"data": "text.txt", "data.length": 8, "model.width": 8, "model.heads": 1, "model.layers": 1}
    train.train(None, {**QUICK, **text}, "text", quiet=True)
    names = ("unfinished", "bad-best", "bad-all", "edited", "bad-recipe", "other-rule", "sgd", "no-metrics")
    for name in (*names, "bad-result", "list-result"):
        shutil.copytree("run", name)
        if name in names:
            Path(name, "result.json").unlink()
    for path in Path("unfinished").glob("*.safetensors"):
        path.unlink()
    for path in Path("bad-all/checkpoints").glob("update-*"):
        content = bytearray(path.read_bytes())
        content[-100] ^= 1
        path.write_bytes(content)
    for path in Path("bad-best/checkpoints").glob("best-*"):
        path.write_bytes(b"damaged")
    Path("bad-result/result.json").write_text('{"status": "fini')
    Path("list-result/result.json").write_text("[1]")
    Path("no-metrics/metrics.jsonl").unlink()
    Path("bad-recipe/recipe.yaml").write_text("optimizer: {lr: high}\n")
    shutil.copytree("run", "other-data")
    for name, old, new in (
        ("edited", "[64, 64]", "[32, 64]"),
        ("other-rule", "name: adam", "name: rmsprop"),
        ("sgd", "name: adam", "name: sgd"),
        ("other-data", "name: digits", "name: wine"),
    ):
        path = Path(name, "recipe.yaml")
        lines = path.read_text().replace(old, new).splitlines(keepends=True)
        adam = ("  beta1", "  beta2", "  eps") if name == "sgd" else ()
        path.write_text("".join(line for line in lines if not line.startswith(adam or ("\0",))))
    shutil.copytree("run", "bad-model")
    content = bytearray(Path("bad-model/model.safetensors").read_bytes())
    content[-100] ^= 1
    Path("bad-model/model.safetensors").write_bytes(content)
    shutil.copytree("run", "cut-model")
    os.truncate("cut-model/model.safetensors", 1000)
    shutil.copytree("run", "no-model")
    Path("no-model/model.safetensors").unlink()
    Path("full").mkdir()
    Path("full/thing").write_text("mine")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder with all bad files; the tests run in it."""
    folder, before = tmp_path_factory.mktemp("bad"), os.getcwd()
    os.chdir(folder)
    try:
        for make in (_tables, _arrays, _image_folders, _recipes, _models, _runs):
            make()
        yield folder
    finally:
        os.chdir(before)


def _content(folder: Path) -> dict[str, str]:
    """Every file and folder below, with a digest."""
    return {
        str(path): hashlib.blake2b(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
        if "__pycache__" not in path.parts
    }


def _run(monkeypatch, capsys, words: Sequence[str]) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["stepwell", *words])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    out, err = capsys.readouterr()
    return code, out, err


def _assert_one_sentence(code: int, out: str, err: str) -> None:
    assert code == 2, (code, out, err)
    assert out == ""
    assert err.endswith("\n") and err.count("\n") == 1, err
    line = err.strip()
    assert line.startswith("stepwell: ") and line[-1] in ".?", line
    assert not any(
        bad in line for bad in ("..", "?.", ".?", ".)", ": :", "Traceback", "  ", "pydantic", "Input should")
    ), line
    assert 20 < len(line) < 500, line


# What is typed → a part of the answer that says where or what.
CASES = {
    # the command line itself
    "train --foo": "--foo",
    "train --ou x": "--out",
    "foo": "foo",
    "predict": "RUN",
    "predict run": "FILE",
    "predict run good.csv --length x": "--length",
    "predict run good.csv --length 0": "--length",
    "predict run good.csv extra": "extra",
    "export run": "--out",
    "recipe optimzer": "optimizer",
    "recipe optimizer.learning": "optimizer",
    "train optimizer.lr": "key=value",
    "train =3": "key=value",
    # keys and names
    "train optimizer.lrr=1": "optimizer.lr",
    "train lr=1": "optimizer.lr",
    "train optimiser.lr=1": "optimizer.lr",
    "train model=mpl": "mlp",
    "train data=digit": "digits",
    "train optimizer=adm": "adam",
    "train schedule=cosin": "cosine",
    "train loss=mean": "loss.name=mean",
    "train optimizer.lr=0.1 optimizer.lr=0.2": "twice",
    "train ∂=1": "∂",
    "train model.größe=3": "model.größe",
    "train optimizer.lr.deep=3": "optimizer.lr",
    "train optimizer..lr=3": "optimizer",
    "train training=3": "training",
    "train seed.x=3": "seed",
    # types and ranges
    "train optimizer.lr=fast": "a number",
    "train optimizer.lr=-1": "at least 0",
    "train optimizer.lr=nan": "optimizer.lr",
    "train optimizer.lr=.inf": "finite",
    "train optimizer.lr=": "optimizer.lr",
    "train optimizer.beta1=1": "below 1",
    "train training.epochs=0": "at least 1",
    "train training.epochs=2.5": "whole number",
    "train training.seconds=-1": "above 0",
    "train training.epochs=2 training.updates=9": "epochs and updates",
    "train training.batch_size=0": "training.batch_size",
    "train training.batch_size=[64]": "whole number",
    "train training.device=cuda:99": "cuda:99",
    "train training.device=gpu": "training.device",
    "train training.weights=worst": "last, best",
    "train training.track=[wandb]": "pip install wandb",
    "train training.track=wandb": "list",
    "train training.track=[excel]": "tensorboard",
    "train training.precision=fp8": "fp32",
    "train model.hidden=64": "model.hidden",
    "train model.hidden=[64,0]": "model.hidden",
    "train model.hidden=[64,many]": "model.hidden",
    "train model.hidden=[64": "model.hidden",
    "train model.hidden={a:1}": "model.hidden",
    "train model.dropout=1": "below 1",
    "train model=cnn model.kernel=4": "odd",
    "train model=resnet model.depth=21": "20 or 26",
    "train data=text.txt model=transformer model.heads=5": "multiple",
    "train seed=-1": "seed",
    "train seed=1.5": "whole number",
    f"train seed={2**70}": "seed",
    f"train training.epochs={'9' * 5000}": "training.epochs",
    "train data.validation=1": "data.validation",
    "train data=": "data",
    "train data=[1]": "data",
    "train model=": "model",
    "train optimizer=7": "optimizer",
    # keys without effect
    "train optimizer.momentum=0.9": "momentum",
    "train optimizer=sgd optimizer.beta1=0.5": "adam",
    "train loss.delta=2": "huber",
    "train loss=mse loss.delta=2": "huber",
    "train data=iris augment.flip=0.5": "augment.flip",
    "train data=good.csv augment.crop=2": "augment.crop",
    "train data=text.txt augment.noise=0.1": "augment.noise",
    "train data=text.txt augment.mixup=0.2": "augment.mixup",
    "train data=good.csv augment.cutmix=1": "augment.cutmix",
    "train data=iris augment.test_time=flip": "augment.test_time",
    "train augment.crop=8": "less than 8",
    "train augment.crop.fill=zero": "augment.crop",
    "train augment.flip=true": "give a number",
    "train augment.erasing=0.2 augment.erasing.high=1.5": "augment.erasing.high",
    "train augment.scale=1.2 augment.scale.high=0.8": "above high",
    "train augment.jitter.hue=0.2": "grey",
    "train augment.mixup=1 training.batch_size=1": "training.batch_size",
    "train augment.fill=zero": "augment.fill",
    "train augment.test_time=flip augment.test_time.share=0.5": "augment.test_time.share",
    "inspect --augmentation seen.png": "augment.flip=0.5",
    "inspect augment.flip=0.5 --augmentation seen.gif": ".png",
    "inspect augment.flip=0.5 --augmentation nowhere/seen.png": "no folder",
    "train data=own-test.npz data.test=0.3": "data.test",
    "train data=own-parts.npz data.split_seed=3": "data.split_seed",
    "train data=own data.test=0.3": "data.test",
    "train data=iris data.validation=0 data.test=0 data.split_seed=3": "data.split_seed",
    "train data.target=x": "data.target",
    "train schedule=constant schedule.end=0.1": "schedule.end",
    "train model.hidden=[] model.dropout=0.5": "dropout",
    "train data.validation=0 training.weights=best": "data.validation",
    "train data.validation=0 data.test=0 training.evaluate_every=9": "no effect without a validation",
    "predict run good.npz --length 9": "--length",
    # recipe files
    "train nowhere.yaml": "nowhere.yaml",
    "train notes.md": "notes.md",
    "train bad.yaml": "line",
    "train twice.yaml": "twice",
    "train list.yaml": "list.yaml",
    "train word.yaml": "word.yaml",
    "train section-list.yaml": "optimizer",
    "train plain-list.yaml": "training",
    "train tag.yaml": "line 1",
    "train deep.yaml": "deep.yaml",
    "train mapping-key.yaml": "line 1",
    "train typo.yaml": "optimizer",
    "train number-key.yaml": "1",
    "train control.yaml": "control.yaml",
    "train deep-key.yaml": "optimizer.lr",
    "train latin1.yaml": "UTF-8",
    "train empty-folder": "empty-folder",
    # data
    "train data=nowhere.csv": "nowhere.csv",
    "train data=notes.md": "notes.md",
    "train data=empty.csv": "empty.csv",
    "train data=binary.csv": "binary.csv",
    "train data=header-only.csv": "header-only.csv",
    "train data=classless.csv": "data.target",
    "train data=good.csv data.target=labl": "label",
    "train data=good.csv data.target=[]": "data.target",
    "train data=good.csv data.ignore=[nothing]": "nothing",
    "train data=good.csv data.ignore=[x,y2]": "data.ignore",
    "train data=good.csv data.task=regression": "label",
    "train data=one-class.csv": "one-class.csv",
    "train data=nan-target.csv": "row 9",
    "train data=constant.csv": "3.5",
    "train data=inf.csv": "inf",
    "train data=ragged.csv": "ragged.csv",
    "train data=latin1.csv": "UTF-8",
    "train data=twice.csv": "x",
    "train data=three.csv": "too few",
    "train data=only-target.csv": "column",
    "train data=broken.parquet": "broken.parquet",
    "train data=no-y.npz": "y_train",
    "train data=lengths.npz": "50",
    "train data=nan.npz": "row 16",
    "train data=nan-y.npz": "row 1",
    "train data=one-class.npz": "one class",
    "train data=objects.npz": "objects",
    "train data=cut.npz": "cut.npz",
    "train data=not.npz": "not.npz",
    "train data=sizes": "99.png",
    "train data=cut": "3.png",
    "train data=one": "one",
    "train data=no-images": "no-images",
    "train data=empty-folder": "empty-folder",
    "train data=broken.zip": "broken.zip",
    "train data=empty.txt": "empty",
    "train data=short.txt": "data.length",
    "train data=one-letter.txt": "'a'",
    "train data=latin1.txt": "UTF-8",
    # models and losses that do not fit the data
    "train data=good.csv model=cnn": "cnn",
    "train model=transformer": "transformer",
    "train data=good.csv model=rnn": "rnn",
    "train data=text.txt model=mlp": "text",
    "train loss=mae": "cross-entropy",
    "train data=diabetes loss=cross-entropy": "mse",
    "train model=nomodule:build": "nomodule",
    "train model=mymodels:nothing": "nothing",
    "train model=brokenmodel:build": "nothing_of_this_name",
    "train model=syntaxmodel:build": "SyntaxError",
    "train model=mymodels:raises": "first line",
    "train model=mymodels:number": "torch.nn.Module",
    "train model=mymodels:empty": "mymodels:empty",
    "train model=mymodels:wrong": "(2, 10)",
    "train model=mymodels:flat": "mymodels:flat",
    "train model=mymodels:pair": "tuple",
    "train model=mymodels:wrong model.width=3": "model.width",
    "train model=a:b:c": "a:b:c",
    # the run folder
    "train --out run": "--resume run",
    "train --out full": "not empty",
    "train --out file": "file",
    "train --out file/below": "file",
    "train --out /proc/nothing/here": "/proc/nothing",
    # going on
    "train --resume nowhere": "nowhere",
    "train --resume full": "recipe.yaml",
    "train --resume file": "file",
    "train --resume run seed=3": "--resume",
    "train --resume run --out other": "--out",
    "train --resume bad-all": "damaged",
    "train --resume bad-result": "result.json",
    "train --resume list-result": "result.json",
    "train --resume no-metrics": "metrics.jsonl",
    "train --resume sgd": "has been changed since this run began",
    "train --resume bad-recipe": "optimizer.lr",
    "train --resume edited": "has been changed since this run began",
    "train --resume other-rule": "rmsprop",
    # a trained model's verbs
    "evaluate nowhere": "nowhere",
    "evaluate unfinished": "--resume",
    "evaluate other-data": "has changed",
    "evaluate bad-model": "damaged",
    "evaluate cut-model": "damaged",
    "evaluate table no-x.csv": "x",
    "evaluate table unknown-class.csv": "zebra",
    "evaluate run nowhere.npz": "nowhere.npz",
    "predict unfinished good.npz": "--resume",
    "predict no-model good.npz": "no model",
    "predict table no-x.csv": "x",
    "predict table text-in-number.csv": "many",
    "predict table good.npz": "good.npz",
    "predict table empty.csv": "empty.csv",
    "predict table nowhere.csv": "nowhere.csv",
    "predict table own": "own",
    "predict run other.npz": "other.npz",
    "predict run good.csv": "good.csv",
    "predict table good.csv --out new.doc": ".csv",
    "predict table good.csv --out nowhere/new.csv": "nowhere",
    "predict table good.csv --out folder.csv": "folder.csv",
    "predict text latin1.txt": "UTF-8",
    "predict text empty.txt": "empty",
    "predict text short.txt --out new.csv": ".txt",
    "export table --out new.doc": ".onnx",
    "export table --out nowhere/new.pt2": "nowhere",
    "export bad-model --out new.pt2": "damaged",
    # comparisons
    "compare": "nothing to compare",
    "compare seeds=0 optimizer=sgd,adam": "seeds=0",
    "compare optimizer=sgd,adam seed=1,2": "seeds=5",
    "compare optimizer=sgd,adam optimizer.lrr=1": "optimizer.lr",
    "compare optimizer=sgd,adam lr=1,2": "optimizer.lr",
    "compare optimizer=sgd,adam out=x": "there is no key out",
    "compare optimizer=sgd,adma": "adamax",
    "compare optimizer=sgd,sgd": "sgd twice",
    "compare optimizer=sgd,,adam": "between two commas",
    "compare optimizer=[adam]": "one value",
    "compare optimizer=momentum,adam optimizer.momentum=0.9": "adam: optimizer.momentum",
    "compare optimizer=adam,adamw regularize.l2=0.1": "adamw: regularize.l2",
    "compare optimizer.lr=log(1,1e-4,9)": "below the last",
    "compare optimizer.lr=log(0,1,5)": "above 0",
    "compare optimizer.lr=range(1,2,0)": "0 values",
    "compare optimizer.lr=range(1,2,1)": "1 value",
    "compare optimizer.lr=log(1,2)": "how many",
    "compare optimizer.lr=log(1e-4,1,9999)": "49,995 trainings",
    "compare model.hidden=[16],[64": "model.hidden=[64",
    "compare model.hidden=16,64": "model.hidden=16",
    "compare model.hidden=[16],[8] model=linear": "model.hidden",
    "compare training.epochs=1,2": "same budget",
    "compare optimizer=sgd,adam training.seconds=3": "training.seconds",
    "compare data=iris,wine": "same data",
    "compare data=good.csv,iris": "same data",
    "compare optimizer=sgd,adam data.validation=0": "data.validation",
    "compare optimizer=sgd,adam training.track=[tensorboard]": "training.track",
    "compare optimizer=sgd,adam model.from=run": "model.from",
    "compare optimizer=sgd,adam --tune optimizer.lr": "lists no values",
    "compare optimizer=sgd,adam --tune optimizer": "nothing to compare",
    "compare optimizer=sgd,adam --halving": "--halving",
    "compare optimizer=sgd,adam --target high": "--target",
    "compare optimizer=sgd,adam --out full": "not empty",
    "compare optimizer=sgd,adam --out run": "not empty",
    "compare bad.yaml": "line",
    "compare list.yaml": "list.yaml",
    "compare notes.md": "notes.md",
    "compare --resume nowhere": "nowhere",
    "compare --resume run": "comparison.yaml",
    "compare --resume run seeds=3": "--resume",
    "report nowhere": "nowhere",
    "report full": "full",
    "report file": "file",
}


@pytest.mark.parametrize("typed", CASES, ids=lambda typed: typed[:60])
def test_bad_input(typed, place, monkeypatch, capsys):
    """One plain sentence that names the place, exit code 2, an empty stdout, and no file changed."""
    before = _content(place)
    json_too = ["--json"] if len(typed) % 2 else []
    code, out, err = _run(monkeypatch, capsys, [*typed.split(" "), *json_too])
    _assert_one_sentence(code, out, err)
    assert CASES[typed] in err
    assert _content(place) == before


@contextmanager
def _disk_full_after(size: int):
    """No file can become larger than `size` bytes: a real failure to write, in libraries too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "typed",
    [
        "train --out new training.updates=2",
        "predict table good.csv --out new.csv",
        "predict table good.csv --out new.tsv",
        "predict table good.csv --out new.parquet",
        "predict table good.csv --out new.json",
        "predict table good.csv --out new.jsonl",
        "predict text text.txt --out new.txt",
        "export table --out new.safetensors",
        "export table --out new.pt2",
        "report run",
    ],
)
def test_full_disk(typed, place, monkeypatch, capsys):
    """What cannot be written whole is not there at all, and an older file stays as it was."""
    before = _content(place)
    with _disk_full_after(200):
        code, out, err = _run(monkeypatch, capsys, typed.split())
    _assert_one_sentence(code, out, err)
    assert "file too large" in err.lower()
    assert _content(place) == before


def test_full_disk_while_training(place, monkeypatch, capsys):
    """A run that finds the disk full says how to go on, and then ends as if nothing had been."""
    typed = "train --out filled model.hidden=[64,64] training.updates=4 training.checkpoint_every=2"
    with _disk_full_after(5000):
        code, out, err = _run(monkeypatch, capsys, typed.split())
    _assert_one_sentence(code, out, err)
    assert "--resume filled" in err
    assert not list(Path("filled").rglob("*.partial"))
    code, _, _ = _run(monkeypatch, capsys, ["train", "--resume", "filled"])
    assert code == 0
    for name in ("model.safetensors", "metrics.jsonl"):
        assert Path("filled", name).read_bytes() == Path("run", name).read_bytes()
    shutil.rmtree("filled")


def test_two_processes_in_one_folder(place, monkeypatch, capsys):
    """A folder in which another process trains is left alone by a new run and by --resume."""
    before = _content(place)
    with open("unfinished/.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for words in (["--resume", "unfinished"], ["--out", "unfinished"]):
            code, out, err = _run(monkeypatch, capsys, ["train", *words])
            _assert_one_sentence(code, out, err)
            assert "another process" in err
    assert _content(place) == before


def test_damaged_best_weights_fall_back(place, monkeypatch, capsys):
    """Where the file of the best weights is damaged, an older checkpoint is taken, and said so."""
    code, _, err = _run(monkeypatch, capsys, ["train", "--resume", "bad-best"])
    assert code == 0 and "damaged" in err
    assert Path("bad-best/metrics.jsonl").read_bytes() == Path("run/metrics.jsonl").read_bytes()


def test_data_that_changed_or_went(place, monkeypatch, capsys):
    """--resume needs the data the run began with, and says whether it has gone or changed."""
    shutil.copy("good.csv", "mine.csv")
    train.train(None, {**QUICK, "data": "mine.csv"}, "mine", quiet=True)
    Path("mine/result.json").unlink()
    Path("mine.csv").write_text(Path("mine.csv").read_text() + "1,2,a\n")
    code, out, err = _run(monkeypatch, capsys, ["train", "--resume", "mine"])
    _assert_one_sentence(code, out, err)
    assert "has changed" in err
    Path("mine.csv").unlink()
    code, out, err = _run(monkeypatch, capsys, ["train", "--resume", "mine"])
    _assert_one_sentence(code, out, err)
    assert "no such file" in err
    shutil.rmtree("mine")


def test_no_memory_and_no_tracker(place, monkeypatch, capsys):
    """Memory that is not there and a tracker that does not start are sentences, and leave no folder."""
    from stepwell.nn import registry
    from stepwell.training import trackers

    def greedy(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    class Offline:
        def __init__(self, *_):
            raise ConnectionError("no network\nand more")

    before = _content(place)
    with monkeypatch.context() as patch:
        patch.setattr(registry, "build", greedy)
        code, out, err = _run(monkeypatch, capsys, ["train", "--out", "new"])
        _assert_one_sentence(code, out, err)
        assert "memory" in err
    monkeypatch.setitem(trackers.TRACKERS, "wandb", Offline)
    monkeypatch.setattr(trackers, "require_installed", lambda names: None)
    code, out, err = _run(monkeypatch, capsys, ["train", "--out", "new/below", "training.track=[wandb]"])
    _assert_one_sentence(code, out, err)
    assert "no network" in err
    assert _content(place) == before


# Unusual, but right.
ODD = [
    "model.hidden=[]",
    "training.batch_size=100000",
    "training.accumulate=1000",
    "training.log_every=1000000000000000000000000",
    "optimizer.lr=0",
    "optimizer.lr=1",
    "training.epochs=1.0",
    "data=own-test.npz data.test=0.2",
    "data=iris data.validation=0",
    "data=iris data.test=0",
    "data=diabetes data.validation=0 data.test=0",
    "data=pair.csv data.validation=0 data.test=0",
    "data=single.csv",
    "data=constant-feature.csv",
    "data=large.csv data.task=regression optimizer.lr=10",
]


@pytest.mark.parametrize("typed", ODD)
def test_odd_but_right(typed, place, tmp_path, monkeypatch, capsys):
    """Tiny data, empty parts, huge batches: these train, and their JSON is strict."""
    values = np.random.default_rng(1).normal(size=60)
    _table("pair.csv", "x,target", ["1,2.5", "2,3.5"])
    _table("single.csv", "x,target", [f"{v},{2 * v}" for v in values])
    _table("constant-feature.csv", "x,c,label", [f"{v},5,{'ab'[int(v > 0)]}" for v in values])
    _table("large.csv", "x,target", [f"{v},{(-1) ** i * 3e38}" for i, v in enumerate(values)])
    updates = [] if "epochs" in typed else ["training.updates=3"]
    words = ["train", "--json", "--out", str(tmp_path / "run"), *typed.split(), *updates]
    code, out, err = _run(monkeypatch, capsys, words)
    assert code == 0, err
    for text in [out, *(tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]:
        json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_predictions_are_strict_json(place, monkeypatch, capsys):
    """NaN, infinities and dates in a file's other columns do not get into the JSON as such."""
    frame = pl.read_csv("good.csv").with_columns(
        odd=pl.lit(float("nan")), huge=pl.lit(float("inf")), day=pl.date(2024, 2, 29)
    )
    frame.write_parquet("odd.parquet")
    code, out, err = _run(monkeypatch, capsys, ["predict", "table", "odd.parquet", "--json"])
    Path("odd.parquet").unlink()
    assert code == 0, err
    answer = json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert answer["rows"] == 40
    assert answer["predictions"][0]["odd"] is None and answer["predictions"][0]["day"] == "2024-02-29"


def _stepwell(*words: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "stepwell", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_process_of_its_own(place):
    """The same from the shell: one sentence, code 2, an empty stdout."""
    for words in (("train", "--foo"), ("train", "optimizer.lr=fast", "--json"), ("predict", "run")):
        process = _stepwell(*words)
        out, err = process.communicate(timeout=60)
        _assert_one_sentence(process.returncode, out, err)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_before_training(number, place, tmp_path):
    """Stopped before the first update, here in the import of a model: 130 or 143, a sentence, no folder."""
    Path("slowmodel.py").write_text(
        "import os, pathlib, time\npathlib.Path(os.environ['MARK']).touch()\ntime.sleep(60)\n"
    )
    before, mark = _content(place), tmp_path / "mark"
    # A shell that starts the tests in the background has them ignore Ctrl-C, and their children with them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = _stepwell(
        "train", "model=slowmodel:build", "--out", "new", env={**os.environ, "MARK": str(mark)}
    )
    try:
        while not mark.exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 128 + number, err
    assert err.startswith("stepwell: stopped") and err.count("\n") == 1 and not out
    assert _content(place) == before


def test_reader_that_leaves(place):
    """`stepwell recipe | head -1` and `stepwell train | head -1`: no complaint about the closed pipe."""
    for words in ("recipe", "train training.updates=2 --out " + str(place / "piped")):
        process = subprocess.run(
            f"set -o pipefail; {sys.executable} -m stepwell {words} | head -1",
            shell=True,
            executable="/bin/bash",
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (process.returncode, "Traceback" in process.stderr) == (0, False), process.stderr
    shutil.rmtree(place / "piped")
