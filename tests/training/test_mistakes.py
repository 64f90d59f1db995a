"""evaluation.json against scikit-learn and slow obvious code; images against pillow."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from stepwell.training.mistakes import evaluation_record, image_data_url

CLASSES = ["zero", "one", "two"]


def show(position):
    return {"values": {"position": position}}


def classified(n, seed=0):
    r = np.random.default_rng(seed)
    p, true = r.dirichlet(np.ones(3), n).reshape(n, 3), r.integers(3, size=n)
    return p, true, -np.log(p[np.arange(n), true])


@given(st.integers(1, 200), st.integers(0, 1000))
@settings(max_examples=30)
def test_tables_are_scikit_learns(n, seed):
    """Confusion and per-class table equal scikit-learn's, null where undefined."""
    p, true, loss = classified(n, seed)
    record = evaluation_record("multi-class", p, true, loss, CLASSES, [], np.arange(n), show)
    assert record["confusion"] == confusion_matrix(true, p.argmax(1), labels=range(3)).tolist()
    nan: Any = np.nan  # scikit-learn's annotations take zero_division for a text only
    truth = precision_recall_fscore_support(true, p.argmax(1), labels=range(3), zero_division=nan)
    for name, column in zip(("precision", "recall", "f1", "support"), truth, strict=True):
        found = [np.nan if x is None else x for x in record["per_class"][name]]
        np.testing.assert_allclose(found, np.asarray(column, float), atol=1e-12, err_msg=name)


def test_worst_mistakes_by_loop():
    """Only wrong rows, the greatest loss first, 24 of them, each with its row and what `show` says."""
    p, true, loss = classified(200)
    rows = np.arange(200) * 10
    record = evaluation_record("multi-class", p, true, loss, CLASSES, [], rows, show)
    wrong = sorted((k for k in range(200) if p[k].argmax() != true[k]), key=lambda k: -loss[k])[:24]
    assert [m["values"]["position"] for m in record["mistakes"]] == wrong
    k, first = wrong[0], record["mistakes"][0]
    assert first == {
        "row": 10 * k,
        "true": CLASSES[true[k]],
        "predicted": CLASSES[p[k].argmax()],
        "probability": p[k].max(),
        "loss": loss[k],
        "values": {"position": k},
    }
    right = np.eye(3)[true]
    assert not evaluation_record("multi-class", right, true, loss, CLASSES, [], rows, show)["mistakes"]


def test_calibration_counts_every_row_once():
    """Ten bins of equal count, whose weighted means are the overall probability and share."""
    p, true, loss = classified(207)
    bins = evaluation_record("binary", p[:, :2], true % 2, loss, CLASSES[:2], [], np.arange(207), show)[
        "calibration"
    ]
    count = np.array(bins["count"])
    assert bins["of"] == "one" and count.sum() == 207 and np.ptp(count) <= 1
    assert count @ bins["predicted"] / 207 == pytest.approx(p[:, 1].mean())
    assert count @ bins["observed"] / 207 == pytest.approx((true % 2).mean())
    assert (np.diff(bins["predicted"]) >= 0).all()
    assert all(a <= b <= c for a, b, c in zip(bins["low"], bins["observed"], bins["high"], strict=True))


def test_labels_are_named():
    """Multi-label mistakes name the labels of truth and prediction, "none" for an empty set."""
    p = np.array([[0.9, 0.8, 0.1], [0.2, 0.1, 0.3], [0.9, 0.1, 0.1]])
    true = np.array([[1, 0, 1], [0, 1, 0], [1, 0, 0]], float)
    record = evaluation_record("multi-label", p, true, [1.0, 2.0, 9.0], CLASSES, [], np.arange(3), show)
    found = [(m["row"], m["true"], m["predicted"]) for m in record["mistakes"]]
    assert found == [(1, "one", "none"), (0, "zero, two", "zero, one")]
    assert record["per_class"]["support"] == [2, 1, 1]


def test_regression_points_and_residuals():
    """At most 5,000 points in order, and the rows of greatest standardized residual in any target."""
    r = np.random.default_rng(0)
    true = r.normal(size=(6000, 2)) * [1, 1000]
    guess = true + r.normal(size=(6000, 2)) * [0.1, 100]
    guess[77, 0] += 3  # 30 deviations of the first target, a small number beside the second's
    record = evaluation_record(
        "regression", guess, true, np.ones(6000), [], ["m", "km"], np.arange(6000), show
    )
    rows = record["rows"]
    assert len(set(rows)) == 5000 and rows == sorted(rows)
    np.testing.assert_array_equal(record["predicted"], guess[rows].T)
    np.testing.assert_array_equal(record["true"], true[rows].T)
    first = record["mistakes"][0]
    assert (first["row"], first["target"]) == (77, "m") and len(record["mistakes"]) == 24
    assert first["residual"] == pytest.approx(true[77, 0] - guess[77, 0])


def test_text_windows_of_greatest_mean_loss():
    """A window's loss is its characters' mean; the worst come first."""
    loss = np.array([[1.0, 1.0], [0.0, 5.0], [2.0, 2.0]])
    tokens = np.zeros((3, 2), int)
    record = evaluation_record(
        "text", tokens, tokens, loss, [], [], np.arange(3), lambda k: {"text": "abc"[k]}
    )
    assert [(m["text"], m["loss"]) for m in record["mistakes"]] == [("b", 2.5), ("c", 2.0), ("a", 1.0)]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_few_rows_and_broken_outputs_stay_json(n):
    """No row, few rows and outputs that are not finite give JSON without NaN and without a warning."""
    p, true, loss = classified(n)
    labels, line = (p > 0.4).astype(float), np.full((n, 2), 3.0)
    cases = {
        "multi-class": (p, true),
        "multi-label": (p, labels),
        "regression": (p[:, :2], line),
        "text": (p, p),
    }
    for broken in (False, True):
        for task, (outputs, targets) in cases.items():
            outputs, losses = outputs.copy(), loss.copy()
            if broken:
                outputs[:1], losses[:1] = np.nan, np.inf
            record = evaluation_record(
                task, outputs, targets, losses, CLASSES, ["u", "v"], np.arange(n), show
            )
            assert json.loads(json.dumps(record, allow_nan=False)) == record
            assert record["task"] == task and len(record["mistakes"]) <= n


def decoded(image):
    head, data = image_data_url(image).split(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_images_survive(channels, height, width, seed):
    """Bytes come back exactly: grey, RGB, RGBA, and the first of any other number of channels."""
    image = np.random.default_rng(seed).integers(0, 256, (channels, height, width), dtype=np.uint8)
    truth = image.transpose(1, 2, 0) if channels in (3, 4) else image[0]
    np.testing.assert_array_equal(decoded(image), truth)


def test_float_images_are_scaled():
    """0 … 1 is absolute; another range is stretched; a constant or broken image is black, not an error."""
    np.testing.assert_array_equal(decoded(np.array([[[0.2, 0.4]]])), [[51, 102]])
    np.testing.assert_array_equal(decoded(np.array([[[0.0, 4.0, 16.0]]], np.float32)), [[0, 64, 255]])
    np.testing.assert_array_equal(decoded(np.array([[[-1.0, 0.0, 1.0]]])), [[0, 128, 255]])
    np.testing.assert_array_equal(decoded(np.array([[[7.0, 7.0]]])), [[0, 0]])
    np.testing.assert_array_equal(decoded(np.array([[[np.nan, 1.0, 0.5]]])), [[0, 255, 128]])
