"""A run that is interrupted and resumed ends bit for bit where the uninterrupted one does."""

import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stepwell.errors import Diverged, Interrupted, UserError
from stepwell.training import checkpoint, trackers, train
from stepwell.training import loop as loop_module
from stepwell.training.conductor import Conductor
from stepwell.training.predict import trained
from stepwell.training.reproducible import same_arithmetic

SMALL = {
    "training.epochs": 3,
    "training.log_every": 7,
    "training.batch_size": 32,
    "training.weights": "last",
}

RUNS = {
    "dropout and noise": {"model.dropout": 0.3, "augment.noise": 0.5},
    "batch norm, flips and crops": {
        "model": "cnn",
        "model.channels": [4, 8],
        "augment.flip": 0.5,
        "augment.crop": 1,
    },
    "accumulation and momentum": {"training.accumulate": 3, "optimizer": "momentum", "regularize.l2": 1e-3},
    "bfloat16": {"training.precision": "bf16", "model.dropout": 0.1},
    "float16": {"training.precision": "fp16", "model.dropout": 0.1, "optimizer.lr": 0.02},
    "best weights": {"training.weights": "best", "optimizer.lr": 0.02},
    "numbers": {"data": "diabetes", "loss": "huber", "schedule": "one-cycle"},
    "plateau": {"schedule": "plateau", "schedule.patience": 0, "schedule.threshold": 0.2},
    "Polyak average": {"training.average": "polyak", "training.average.start": 0.1},
    "average at the ends of cycles": {"training.average": "swa", "schedule": "swa", "schedule.start": 0.2},
    "average with batch norm": {"model": "cnn", "model.channels": [4], "training.average": "ema"},
    "early stopping": {
        "training.early_stopping": 1,
        "training.weights": "auto",
        "training.early_stopping.threshold": 0.4,
        "training.evaluate_every": 13,
    },
    "max-norm and smooth labels": {"regularize.max_norm": 0.7, "regularize.label_smoothing": 0.1},
    "one cycle of momentum": {"schedule": "one-cycle", "schedule.low_momentum": 0.5, "optimizer": "nesterov"},
}


def digest(folder: Path) -> dict[str, str]:
    """Hashes of all that must be the same: weights, metrics, evaluation, the last checkpoint's content."""
    found = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "metrics.jsonl", "evaluation.json")
    }
    last = sorted((folder / "checkpoints").glob("update-*"))[-1]
    tensors, state = checkpoint.read(last)
    found["checkpoint"] = (
        last.name
        + hashlib.sha256(
            b"".join(
                name.encode() + t.reshape(-1).view(torch.uint8).numpy().tobytes()
                for name, t in sorted(tensors.items())
            )
        ).hexdigest()
    )
    clock = {"seconds", "lines", "progress"}
    found["state"] = json.dumps({k: v for k, v in state.items() if k not in clock})
    return found


def interrupt_at(monkeypatch, updates):
    """Makes a signal arrive right after each of these updates, once."""
    left = sorted(updates)
    original = Conductor.interrupted

    def interrupted(self):
        if left and self.run.update >= left[0]:
            left.pop(0)
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self)

    monkeypatch.setattr(Conductor, "interrupted", interrupted)


def train_with_interruptions(recipe, out, monkeypatch, updates):
    with monkeypatch.context() as patch:
        interrupt_at(patch, updates)
        try:
            train.train(None, recipe, str(out), quiet=True)
        except Interrupted as stopped:
            assert stopped.signal == signal.SIGTERM
        for _ in range(len(updates) + 1):
            try:
                _, was_finished = train.resume(out, quiet=True)
                if was_finished:
                    return
            except Interrupted:
                continue


def train_until(out, monkeypatch, update):
    """Leaves a run interrupted after this update."""
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        interrupt_at(patch, [update])
        train.train(None, SMALL, str(out), quiet=True)


@pytest.mark.parametrize("name", RUNS)
def test_resumed_equals_uninterrupted(name, tmp_path, monkeypatch):
    """Stopped at two updates inside an epoch and off the grid of checks, then resumed: the same bits."""
    recipe = {**SMALL, **RUNS[name]}
    train.train(None, recipe, str(tmp_path / "whole"), quiet=True)
    train_with_interruptions(recipe, tmp_path / "parts", monkeypatch, [5, 23])
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train.train(
        None, {**SMALL, "model.dropout": 0.2, "training.checkpoint_every": 9}, str(folder), quiet=True
    )
    return digest(folder)


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(updates=st.sets(st.integers(1, 116), min_size=1, max_size=4))
def test_any_moment(whole, tmp_path_factory, monkeypatch, updates):
    """Whatever updates it is stopped at, a run ends with the same bits."""
    folder = tmp_path_factory.mktemp("parts") / "run"
    recipe = {**SMALL, "model.dropout": 0.2, "training.checkpoint_every": 9}
    train_with_interruptions(recipe, folder, monkeypatch, updates)
    assert digest(folder) == whole


def test_images_decoded_by_workers_while_training(tmp_path, monkeypatch):
    """With images decoded from disk by two workers, flips and crops: the same bits, also with one worker."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("cat", "dog"):
            (tmp_path / "pets" / split / label).mkdir(parents=True)
            for i in range(20):
                pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pets" / split / label / f"{i}.png")
    recipe = {
        "data": str(tmp_path / "pets"),
        "data.in_memory": False,
        "data.workers": 2,
        "model.channels": [4],
        "augment.flip": 0.5,
        "augment.crop": 1,
        "training.epochs": 4,
        "training.batch_size": 8,
        "training.log_every": 3,
    }
    train.train(None, recipe, str(tmp_path / "whole"), quiet=True)
    train_with_interruptions(recipe, tmp_path / "parts", monkeypatch, [2, 7, 11])
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")
    train.train(None, {**recipe, "data.workers": 1}, str(tmp_path / "one"), quiet=True)
    assert digest(tmp_path / "one")["model.safetensors"] == digest(tmp_path / "whole")["model.safetensors"]


def test_text(tmp_path, monkeypatch):
    """A transformer with dropout on text, whose windows shift from epoch to epoch: the same bits."""
    (tmp_path / "verse.txt").write_text("".join(random.Random(0).choices("abcde \n", k=4000)))
    recipe = {
        "data": str(tmp_path / "verse.txt"),
        "data.length": 16,
        "model.layers": 1,
        "model.width": 16,
        "model.heads": 2,
        "model.dropout": 0.2,
        **SMALL,
    }
    train.train(None, recipe, str(tmp_path / "whole"), quiet=True)
    train_with_interruptions(recipe, tmp_path / "parts", monkeypatch, [4, 13])
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")


def test_roll_backs_resume_too(tmp_path, monkeypatch):
    """A run that rolls back twice, stopped before and after, does the same roll-backs with the same rates."""
    recipe = {**SMALL, "data": "diabetes", "optimizer": "sgd", "optimizer.lr": 30, "schedule": "constant"}
    train.train(None, recipe, str(tmp_path / "whole"), quiet=True)
    train_with_interruptions(recipe, tmp_path / "parts", monkeypatch, [3, 10, 20])
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")
    events = [json.loads(row) for row in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert 1 <= sum("event" in row for row in events) <= 3


def test_after_three_roll_backs_it_stops(tmp_path):
    """A rate that three cuts by ten do not save ends in Diverged, and the folder can still be read."""
    recipe = {**SMALL, "data": "diabetes", "optimizer": "sgd", "optimizer.lr": 1e30, "schedule": "constant"}
    with pytest.raises(Diverged, match="after 3 roll-backs"):
        train.train(None, recipe, str(tmp_path / "run"), quiet=True)
    rows = [json.loads(row) for row in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert sum("event" in row for row in rows) == 3


def command(*words):
    return [sys.executable, "-m", "stepwell", "train", *map(str, words)]


def test_sigkill_and_fresh_processes(tmp_path):
    """Killed with SIGKILL while training, and resumed in new processes, a run ends with the same bits."""
    recipe = ["training.epochs=120", "training.checkpoint_every=41", "model.dropout=0.2", "augment.noise=0.2"]
    subprocess.run(command(*recipe, "--out", tmp_path / "whole"), check=True, capture_output=True)
    folder, moments, killed_at = tmp_path / "parts", random.Random(1), []
    words = [*recipe, "--out", folder]
    for _ in range(3):
        before = newest_checkpoint(folder)
        process = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while newest_checkpoint(folder) == before and process.poll() is None:
            time.sleep(0.002)
        time.sleep(moments.uniform(0.0, 0.05))
        process.kill()
        if process.wait() == -signal.SIGKILL:
            killed_at.append(newest_checkpoint(folder))
        words = ["--resume", folder]
    assert len(killed_at) >= 2 and all(0 < update < 2400 for update in killed_at[:2])
    subprocess.run(command("--resume", folder), check=True, capture_output=True)
    assert digest(folder) == digest(tmp_path / "whole")


def newest_checkpoint(folder: Path) -> int:
    """The update of the newest checkpoint; 0 where there is none."""
    names = (folder / "checkpoints").glob("update-*.safetensors")
    return max((int(path.stem.partition("-")[2]) for path in names), default=0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_save_and_say_how_to_go_on(number, code, tmp_path):
    """Ctrl-C and SIGTERM end with 130 and 143, a checkpoint, and the command that goes on."""
    process = subprocess.Popen(
        command("training.epochs=2000", "--out", tmp_path / "run"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"stepwell train --resume {tmp_path / 'run'}" in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "run" / "checkpoints").glob("update-*"))


def test_a_finished_run_says_so(tmp_path):
    """--resume on a finished run changes nothing and returns its result."""
    result, _ = train.train(None, SMALL, str(tmp_path / "run"), quiet=True)
    before = digest(tmp_path / "run")
    again, was_finished = train.resume(tmp_path / "run", quiet=True)
    assert was_finished and again == result and digest(tmp_path / "run") == before


def test_changed_data_is_refused(tmp_path, monkeypatch):
    """A run whose data file changed in the meantime is not gone on with."""
    table = tmp_path / "t.csv"
    rows = [f"{i},{i % 7},{'yes' if i % 3 else 'no'}" for i in range(200)]
    table.write_text("a,b,target\n" + "\n".join(rows))
    with monkeypatch.context() as patch:
        interrupt_at(patch, [5])
        with pytest.raises(Interrupted):
            train.train(None, {"data": str(table), **SMALL}, str(tmp_path / "run"), quiet=True)
    table.write_text(table.read_text().replace("1,1,yes", "1,2,yes", 1))
    with pytest.raises(UserError, match="changed since this run began"):
        train.resume(tmp_path / "run", quiet=True)


def test_a_damaged_checkpoint_is_passed_over(tmp_path, monkeypatch):
    """One flipped bit in the newest checkpoint is noticed; the one before it leads to the same end."""
    recipe = {**SMALL, "training.checkpoint_every": 10}
    train.train(None, recipe, str(tmp_path / "whole"), quiet=True)
    with monkeypatch.context() as patch:
        interrupt_at(patch, [47])
        with pytest.raises(Interrupted):
            train.train(None, recipe, str(tmp_path / "parts"), quiet=True)
    newest = tmp_path / "parts" / "checkpoints" / "update-000000047.safetensors"
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1
    newest.write_bytes(content)
    (tmp_path / "parts" / ".metrics.jsonl.17.partial").write_text("what a killed process left")
    train.resume(tmp_path / "parts", quiet=True)
    whole, parts = digest(tmp_path / "whole"), digest(tmp_path / "parts")
    assert parts == whole
    assert not list((tmp_path / "parts").rglob("*.partial"))


def test_a_second_failure_from_the_same_state_goes_back_to_the_start(tmp_path):
    """Weights that are finite but have exploded are given up: the run starts anew and ends well."""
    recipe = {
        "data": "diabetes",
        "model": "mlp",
        "optimizer": "sgd",
        "optimizer.lr": 3,
        "training.updates": 200,
    }
    result, folder = train.train(None, recipe, str(tmp_path / "run"), quiet=True)
    events = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    messages = [row["message"] for row in events if "event" in row]
    assert any("back to the start" in message for message in messages)
    assert result["test"]["r2"]["value"] > 0.2


def test_checkpoints_of_a_given_up_future_are_gone(tmp_path, monkeypatch):
    """After a roll-back no checkpoint is newer than the run, and the next ones are kept."""
    recipe = {
        **SMALL,
        "training.log_every": 50,
        "training.checkpoint_every": 5,
        "training.evaluate_every": 50,
    }
    original, spoilt = loop_module.backward, []

    def backward(run):
        loss = original(run)
        if run.update == 42 and not spoilt:
            spoilt.append(run.update)
            return loss * math.nan
        return loss

    monkeypatch.setattr(loop_module, "backward", backward)
    seen = []
    original_save = Conductor.save

    def save(self):
        original_save(self)
        seen.append((self.run.update, newest_checkpoint(tmp_path / "run")))

    monkeypatch.setattr(Conductor, "save", save)
    train.train(None, recipe, str(tmp_path / "run"), quiet=True)
    assert spoilt and (0, 0) in seen  # there was no check before, so it went back to the start
    assert all(newest == update for update, newest in seen)


def test_weights_that_overflow_in_the_last_update_roll_back(tmp_path):
    """A step that makes weights infinite is noticed with a finite loss and gradient before it."""
    recipe = {
        **SMALL,
        "optimizer": "sgd",
        "optimizer.lr": 1e38,
        "schedule": "constant",
        "training.log_every": 1,
    }
    with pytest.raises(Diverged, match="not finite, after 3 roll-backs"):
        train.train(None, recipe, str(tmp_path / "run"), quiet=True)


def test_float16_overflow_is_an_ordinary_event(tmp_path):
    """fp16 updates that overflow are skipped and logged without norms, and the run goes on."""
    recipe = {"data": "diabetes", "training.precision": "fp16", "optimizer.lr": 0.05, "training.log_every": 1}
    result, folder = train.train(None, {**recipe, "training.epochs": 3}, str(tmp_path / "run"), quiet=True)
    rows = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()]
    assert result["status"] == "finished" and all(math.isfinite(r["loss"]) for r in rows if "loss" in r)


def test_a_buffer_that_the_model_rebinds_is_saved(tmp_path, monkeypatch):
    """A user's module that assigns its buffer anew in forward resumes with the buffer's value."""
    (tmp_path / "rebinding.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self, n):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Linear(64, n)\n"
        "        self.register_buffer('average', torch.zeros(64))\n"
        "    def forward(self, x):\n"
        "        x = x.flatten(1)\n"
        "        if self.training:\n"
        "            self.average = 0.9 * self.average + 0.1 * x.detach().mean(0)\n"
        "        return self.layer(x - self.average)\n"
        "def net(input_shape, outputs):\n"
        "    return Net(outputs)\n"
    )
    monkeypatch.chdir(tmp_path)
    recipe = {**SMALL, "model": "rebinding:net"}
    train.train(None, recipe, str(tmp_path / "whole"), quiet=True)
    train_with_interruptions(recipe, tmp_path / "parts", monkeypatch, [5, 50])
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")
    assert checkpoint.read(tmp_path / "whole" / "model.safetensors")[0]["body.average"].abs().sum() > 0


def test_killed_before_its_recipe_was_written(tmp_path):
    """A folder whose process was killed before it wrote the recipe is taken over."""
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / ".lock").touch()
    (tmp_path / "run" / ".recipe.yaml.17.partial").write_text("data:")
    result, _ = train.train(None, SMALL, str(tmp_path / "run"), quiet=True)
    assert result["status"] == "finished"


def test_a_failing_tracker_does_not_end_the_training(tmp_path, monkeypatch, capsys):
    """A tracker whose network is gone is given up with one line; until then it got what was logged."""
    got = []

    class Fails:
        def __init__(self, *_):
            pass

        def log(self, values, update):
            got.append((update, values))
            if update > 10:
                raise ConnectionError("network gone")

        def close(self):
            pass

    monkeypatch.setitem(trackers.TRACKERS, "tensorboard", Fails)
    monkeypatch.setattr(trackers, "require_installed", lambda names: None)
    result, _ = train.train(None, {**SMALL, "training.track": ["tensorboard"]}, str(tmp_path / "run"))
    assert result["status"] == "finished" and [update for update, _ in got] == [7, 14]
    assert "train/loss" in got[0][1] and "hyperparameters/lr" in got[0][1]
    assert capsys.readouterr().err.count("network gone") == 1


def test_an_edited_recipe_is_refused(tmp_path, monkeypatch):
    """A rate changed in recipe.yaml between stop and resume, or an activation after the end, is noticed."""
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        interrupt_at(patch, [3])
        with pytest.raises(Interrupted):
            train.train(None, SMALL, str(folder), quiet=True)
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.replace("lr: 0.001", "lr: 0.5"))
    with pytest.raises(UserError, match=r"optimizer\.lr was 0\.001"):
        train.resume(folder, quiet=True)
    (folder / "recipe.yaml").write_text(text)
    train.resume(folder, quiet=True)
    (folder / "recipe.yaml").write_text(text.replace("relu", "tanh"))
    with pytest.raises(UserError, match=r"model\.activation was relu"):
        trained(folder)


def test_a_lost_model_is_rebuilt_from_the_checkpoint(tmp_path):
    """A finished run without its model file is finished again, to the same bytes."""
    train.train(None, SMALL, str(tmp_path / "run"), quiet=True)
    model = tmp_path / "run" / "model.safetensors"
    before = model.read_bytes()
    model.unlink()
    (tmp_path / "run" / "timing.jsonl").unlink()  # no part of the promise: its loss stops nothing
    train.resume(tmp_path / "run", quiet=True)
    assert model.read_bytes() == before


def test_a_model_that_draws_from_python_and_numpy(tmp_path, monkeypatch):
    """All generators that a module may use are part of the state, normal numbers' kept halves too."""
    (tmp_path / "noisy.py").write_text(
        "import random, torch, numpy\n"
        "class Noisy(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        if self.training:\n"
        "            x = x + random.gauss(0, 1) + float(numpy.random.normal()) + random.random()\n"
        "        return super().forward(x.flatten(1))\n"
        "def make(shape, outputs):\n"
        "    return Noisy(64, outputs)\n"
    )
    monkeypatch.chdir(tmp_path)
    recipe = {**SMALL, "model": "noisy:make", "training.updates": 31}
    del recipe["training.epochs"]
    train.train(None, recipe, "whole", quiet=True)
    before = random.getstate(), [str(part) for part in np.random.get_state()]
    train_with_interruptions(recipe, "parts", monkeypatch, [6, 17])  # an odd number of normal ones before
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")
    assert before == (random.getstate(), [str(part) for part in np.random.get_state()])


def test_going_on_elsewhere_is_said(tmp_path, monkeypatch, capsys):
    """Bit for bit holds on one machine: with another torch, the note says which it began with."""
    train_until(tmp_path / "run", monkeypatch, 5)
    path = sorted((tmp_path / "run/checkpoints").glob("update-*"))[-1]
    tensors, state = checkpoint.read(path)
    checkpoint.write(path, tensors, state | {"environment": state["environment"] | {"torch": "2.11.0"}})
    train.resume(tmp_path / "run")
    assert f"began with torch 2.11.0, now {torch.__version__}: its end may differ" in capsys.readouterr().err


def test_a_lost_gpu_is_refused(tmp_path, monkeypatch):
    """The saved recipe names the device: where it is gone, the run does not quietly go on on another."""
    train_until(tmp_path / "run", monkeypatch, 5)
    recipe = tmp_path / "run/recipe.yaml"
    assert "device: cpu" in recipe.read_text()
    recipe.write_text(recipe.read_text().replace("device: cpu", "device: cuda:7"))
    with pytest.raises(UserError, match=r"recipe.yaml: training.device=cuda:7: use cpu.*last bits"):
        train.resume(tmp_path / "run")


def test_arithmetic_does_not_vary_and_is_given_back():
    """While a run computes, torch may only use algorithms that give the same bits each time."""

    def state():
        mode = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
        return *mode, torch.get_num_threads(), memory.fill_uninitialized_memory

    memory: Any = torch.utils.deterministic
    before = state()
    with same_arithmetic(one_thread=True, warn=False):
        assert torch.are_deterministic_algorithms_enabled() and torch.get_num_threads() == 1
        with pytest.raises(RuntimeError, match="deterministic"):
            torch.ones(4).put_(torch.tensor([0, 0]), torch.ones(2))
    with pytest.warns(UserWarning, match="deterministic"), same_arithmetic(one_thread=False, warn=True):
        torch.ones(4).put_(torch.tensor([0, 0]), torch.ones(2))
    assert state() == before


def test_each_kept_checkpoint_keeps_its_best_weights(tmp_path, monkeypatch):
    """The oldest of three checkpoints can still be gone on with after the best weights have moved on."""
    recipe = {**SMALL, "training.checkpoint_every": 13, "training.evaluate_every": 13}
    recipe["training.keep_checkpoints"] = 3
    train.train(None, recipe, str(tmp_path / "whole"), quiet=True)
    with monkeypatch.context() as patch:
        interrupt_at(patch, [79])
        with pytest.raises(Interrupted):
            train.train(None, recipe, str(tmp_path / "run"), quiet=True)
    older, *newer = sorted((tmp_path / "run/checkpoints").glob("update-*"))
    for path in newer:
        assert checkpoint.read(older)[1]["best"] != checkpoint.read(path)[1]["best"]
        path.write_bytes(path.read_bytes()[:100])
    train.resume(tmp_path / "run", quiet=True)
    assert digest(tmp_path / "run") == digest(tmp_path / "whole")
    named = {f"best-{checkpoint.read(p)[1]['best']['update']:09d}" for p in older.parent.glob("update-*")}
    assert {path.stem for path in older.parent.glob("best-*")} == named


def test_losses_in_float64_survive(tmp_path, monkeypatch):
    """A model that answers in float64 has losses in float64; those waiting for their line keep every bit."""
    (tmp_path / "exact.py").write_text(
        "from torch import nn\n"
        "class Exact(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x.flatten(1).double())\n"
        "def make(shape, outputs):\n"
        "    return Exact(64, outputs).double()\n"
    )
    monkeypatch.chdir(tmp_path)
    recipe = {**SMALL, "model": "exact:make"}
    train.train(None, recipe, "whole", quiet=True)
    train_with_interruptions(recipe, "parts", monkeypatch, [5, 23])
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")


def test_metrics_that_were_changed_are_noticed(tmp_path, monkeypatch):
    """Other bytes of the same number in metrics.jsonl are no more accepted than fewer of them."""
    train_until(tmp_path / "run", monkeypatch, 15)
    lines = tmp_path / "run/metrics.jsonl"
    before = lines.read_bytes()
    lines.write_bytes(before.replace(b"train", b"trein", 1))
    with pytest.raises(UserError, match=r"metrics.jsonl has been changed since its checkpoint"):
        train.resume(tmp_path / "run", quiet=True)
    lines.write_bytes(before[:-9])
    with pytest.raises(UserError, match=r"metrics.jsonl has lost lines since its checkpoint"):
        train.resume(tmp_path / "run", quiet=True)
    lines.write_bytes(before + b"{}\n")  # written after the checkpoint: cut off
    train.resume(tmp_path / "run", quiet=True)


@pytest.mark.parametrize("damage", ["cut", "gone", "another"])
def test_a_finished_runs_model_is_written_anew(damage, tmp_path):
    """A lost, cut or foreign model of a finished run comes back from its checkpoint, bit for bit."""
    train.train(None, SMALL, str(tmp_path / "run"), quiet=True)
    model = tmp_path / "run/model.safetensors"
    before = model.read_bytes()
    if damage == "gone":
        model.unlink()
    elif damage == "cut":
        model.write_bytes(before[:500])
    else:
        train.train(None, {**SMALL, "seed": 1}, str(tmp_path / "other"), quiet=True)
        model.write_bytes((tmp_path / "other/model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"--resume"):
        trained(tmp_path / "run")
    _, was_finished = train.resume(tmp_path / "run", quiet=True)
    assert not was_finished and model.read_bytes() == before


@pytest.mark.parametrize("result", ['{"status": "finished"}', "[]", '{"status": "finished", "data": 4}'])
def test_a_damaged_result_is_refused(result, tmp_path, monkeypatch):
    """result.json that is JSON but not a result gets a sentence, from resume and evaluate alike."""
    train_until(tmp_path / "run", monkeypatch, 5)
    (tmp_path / "run/result.json").write_text(result)
    for act in (train.resume, trained):
        with pytest.raises(UserError, match=r"result.json is damaged: remove it"):
            act(tmp_path / "run")


def test_the_device_may_be_left_to_the_machine(tmp_path, monkeypatch):
    """recipe.yaml edited to device: auto goes on where auto leads."""
    train.train(None, SMALL, str(tmp_path / "whole"), quiet=True)
    train_until(tmp_path / "run", monkeypatch, 5)
    recipe = tmp_path / "run/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("device: cpu", "device: auto"))
    train.resume(tmp_path / "run", quiet=True)
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_the_callers_settings_change_nothing(tmp_path):
    """Under no_grad, inference mode or float64 as default a run is the same, and the settings stay."""
    train.train(None, SMALL, str(tmp_path / "plain"), quiet=True)
    for number, setting in enumerate((torch.no_grad(), torch.inference_mode())):
        with setting:
            train.train(None, SMALL, str(tmp_path / str(number)), quiet=True)
            assert not torch.is_grad_enabled()
    torch.set_default_dtype(torch.float64)
    try:
        train.train(None, SMALL, str(tmp_path / "2"), quiet=True)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    for number in range(3):
        assert digest(tmp_path / str(number)) == digest(tmp_path / "plain")


def test_back_to_the_start_is_the_start_for_every_generator(tmp_path, monkeypatch):
    """A roll-back to the start restores Python's and NumPy's generators, wherever the run was stopped."""
    (tmp_path / "wild.py").write_text(
        "import random, numpy, torch\n"
        "class Wild(torch.nn.Linear):\n"
        "    def forward(self, x):\n"
        "        noise = random.random() + float(numpy.random.random()) if self.training else 1.0\n"
        "        return super().forward(x.flatten(1) * (1 + 1e-3 * noise))\n"
        "def make(shape, outputs):\n"
        "    return Wild(64, outputs)\n"
    )
    monkeypatch.chdir(tmp_path)
    recipe = {**SMALL, "model": "wild:make", "loss": "mse", "optimizer": "sgd", "data": "digits"}
    recipe |= {"optimizer.lr": 3e37, "schedule": "constant"}
    with pytest.raises(Diverged):
        train.train(None, recipe, "whole", quiet=True)
    with monkeypatch.context() as patch:
        interrupt_at(patch, [1])
        with pytest.raises(Interrupted):
            train.train(None, recipe, "parts", quiet=True)
    with pytest.raises(Diverged):
        train.resume("parts", quiet=True)
    assert (tmp_path / "parts/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()
