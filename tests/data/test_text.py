"""Text as windows of characters, against slicing Python strings."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stepwell.data import text
from stepwell.data.dataset import TensorInputs
from stepwell.data.text import TextData, TextPart, decode, encode, load, read_new
from stepwell.errors import UserError

SENTENCE = "Grüße, 世界! The quick brown fox jumps over the lazy dog.\n"


@pytest.fixture
def file(tmp_path):
    def write(content: str | bytes, name="text.txt"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write


@given(n=st.integers(12, 200), length=st.integers(1, 6), key=st.integers(0, 10**6), data=st.data())
def test_windows_are_slices(n, length, key, data):
    """Sample i is tokens[i·T + shift :][:T], its target one further, at every shift and for every i."""
    tokens = torch.randint(0, 256, (n,), dtype=torch.uint8)
    shifted = data.draw(st.booleans())
    part = TextPart(tokens, length, 0, shifted)
    shift = key % length if shifted else 0
    if shifted:  # one window more would not fit at the largest shift
        assert len(part) * length + length - 1 < n <= (len(part) + 1) * length + length - 1
    else:
        assert len(part) * length < n <= (len(part) + 1) * length
    index = torch.randperm(len(part))
    inputs, targets = part.gather(index, key)
    assert inputs.dtype == targets.dtype == torch.int64 and inputs.shape == (len(part), length)
    for row, i in enumerate(index.tolist()):
        start = i * length + shift
        assert inputs[row].tolist() == tokens[start : start + length].tolist()
        assert targets[row].tolist() == tokens[start + 1 : start + length + 1].tolist()


def test_parts_are_contiguous_and_only_training_makes_the_vocabulary(file):
    """80 / 10 / 10 % in the text's order; a character that only the test part has is number 0."""
    content = SENTENCE * 40
    content = content[: len(content) * 95 // 100] + "Ж" * (len(content) - len(content) * 95 // 100)
    data = load(TextData(name=file(content), length=8))
    n, tenth = len(content), len(content) // 10
    train = content[: n - 2 * tenth]
    assert data.classes == ["\ufffd", *sorted(set(train))]
    assert data.outputs == len(data.classes) and data.input_shape == (8,)
    assert (data.kind, data.task, data.input_shift) == ("text", "text", None)
    for part, start in ((data.train, 0), (data.validation, n - 2 * tenth), (data.test, n - tenth)):
        inputs, targets = part.gather(torch.arange(len(part)))
        for i in range(len(part)):
            at = int(part.rows[i])
            assert at == start + 8 * i
            expected = "".join(c if c in train else "\ufffd" for c in content[at : at + 9])
            assert decode(inputs[i], data.preparation) == expected[:-1]
            assert decode(targets[i], data.preparation) == expected[1:]
        assert torch.equal(part.inputs.gather(torch.arange(len(part))), inputs)
        assert torch.equal(part.targets.long(), targets)
    assert f"{content.count('Ж')} of {2 * tenth} characters" in data.notes[0]


def test_many_characters_need_a_wider_type(file):
    """Above 256 characters the tokens are int32, and still come out as int64."""
    content = "".join(map(chr, range(0x4E00, 0x4E00 + 700))) * 3
    data = load(TextData(name=file(content), length=4))
    assert isinstance(data.train, TextPart) and data.train.tokens.dtype == torch.int32
    assert decode(data.train.gather(torch.tensor([2]))[0][0], data.preparation) == content[8:12]


def test_large_text_is_mapped_from_the_cache(file, tmp_path, monkeypatch):
    """Chunks that cut characters, and tokens on disk, give the same samples as text in memory."""
    path = file("\ufeff" + SENTENCE * 30)
    small = load(TextData(name=path, length=5))
    monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(text, "MAP_BYTES_FROM", 10)
    monkeypatch.setattr(text, "CHUNK_BYTES", 7)
    large = load(TextData(name=path, length=5))
    assert small.train.inputs.resident and not large.train.inputs.resident
    assert small.classes == large.classes and small.fingerprint == large.fingerprint
    index = torch.arange(len(small.train))
    for key in (0, 3):
        for a, b in zip(small.train.gather(index, key), large.train.gather(index, key), strict=True):
            assert torch.equal(a, b)
    assert [f.suffix for f in (tmp_path / "cache").iterdir()] == [".tokens"]


@given(st.text())
def test_decode_inverts_encode(sample):
    """Known characters survive, unknown ones become U+FFFD."""
    preparation = {"classes": ["\ufffd", *sorted(set("abcé\n世"))]}
    expected = "".join(c if c in "abcé\n世" else "\ufffd" for c in sample)
    assert decode(encode(sample, preparation), preparation) == expected


def test_new_text_is_a_prompt_or_windows(file):
    """Predicting gets the whole text as (1, n); evaluating gets windows and what follows them."""
    data = load(TextData(name=file(SENTENCE * 20), length=8))
    path = file("The lazy fox, jumps", "prompt.txt")
    prompt = read_new(data.preparation, path, targets=False)
    assert isinstance(prompt.inputs, TensorInputs) and prompt.targets is None
    assert decode(prompt.inputs.values[0], data.preparation) == "The lazy fox, jumps"
    new = read_new(data.preparation, path, targets=True)
    assert isinstance(new.inputs, TensorInputs) and new.targets is not None
    assert [decode(row, data.preparation) for row in new.inputs.values] == ["The lazy", " fox, ju"]
    assert [decode(row, data.preparation) for row in new.targets] == ["he lazy ", "fox, jum"]
    assert new.table["start"].to_list() == [0, 8]


def test_unknown_characters_are_noted(file):
    """They are counted and the first are named; a replacement character of the text's own is no news."""
    data = load(TextData(name=file(SENTENCE * 20), length=8))

    def notes(text, targets):
        return read_new(data.preparation, file(text, "new.txt"), targets).notes

    assert notes("The fox \ufffd", False) == []
    assert notes("The fox Ω", False) == [
        "1 character of the prompt is unknown to the model ('Ω'), and becomes \ufffd."
    ]
    assert notes("The fox Ω¶Ω over", True) == [
        "3 characters of the text are unknown to the model ('Ω', '¶'), and become \ufffd."
    ]


@pytest.mark.parametrize("chunk", [3, 4096])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"too short", "9 characters"),
        (b"a" * 1000, "'a' throughout"),
        (b"abc" * 99 + "ü".encode("latin1") + b"abc" * 99, "byte 297; convert it, e.g. `iconv -f LATIN1"),
        (("abc" * 99).encode("utf-16"), "byte 0; convert it, e.g. `iconv -f UTF-16"),
        (b"abc" * 99 + "世".encode()[:2], "ends inside a character at byte 297"),
        (("世" * 99).encode() + b"\xe4" + b"abc" * 9, "byte 297"),
    ],
)
def test_bad_text_is_refused(file, monkeypatch, chunk, content, said):
    """One sentence with the file's name, the place and the remedy, however the chunks fall."""
    monkeypatch.setattr(text, "CHUNK_BYTES", chunk)
    with pytest.raises(UserError) as refused:
        load(TextData(name=file(content), length=8))
    assert said in str(refused.value) and "text.txt" in str(refused.value)


def test_bad_settings_and_paths_are_refused(file, tmp_path):
    """A missing file, a folder, and shares that leave nothing to train on."""
    with pytest.raises(UserError, match="no such file"):
        load(TextData(name=str(tmp_path / "none.txt")))
    with pytest.raises(UserError, match="cannot be read"):
        load(TextData(name=str(tmp_path)))
    with pytest.raises(UserError, match="below 1"):
        load(TextData(name=file(SENTENCE), validation=0.5, test=0.5))
