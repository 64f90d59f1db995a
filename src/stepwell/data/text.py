"""Plain text, character by character: each sample is a window, its target the same window one further."""

from __future__ import annotations

import codecs
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from stepwell.data.archive import cached, file_fingerprint
from stepwell.data.dataset import DataSet, NewData, Part, TensorInputs
from stepwell.errors import UserError
from stepwell.progress import counted

MAP_BYTES_FROM = 256 * 2**20  # tokens of a text at least this large stay on disk
CHUNK_BYTES = 4 * 2**20
UNKNOWN = "\ufffd"  # class 0: what the training part does not contain
_CODE_POINTS = 0x110000


class TextData(BaseModel):
    """A plain text file."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(description="path of a plain text file (UTF-8)")
    length: int = Field(default=64, ge=1, le=2**20, description="characters a sample")
    validation: float = Field(
        default=0.1, ge=0, lt=1, description="share for validation, before the test part"
    )
    test: float = Field(default=0.1, ge=0, lt=1, description="share for testing, from the end of the text")


class Windows:
    """Windows of `length` tokens, one after the other, as int64; the last has a successor for its target."""

    def __init__(self, tokens: Tensor, length: int, count: int, resident: bool) -> None:
        self.tokens, self.length, self.count, self.resident = tokens, length, count, resident
        self.shape = (length,)

    def __len__(self) -> int:
        return self.count

    def gather(self, index: Tensor) -> Tensor:
        return _take(self.tokens, index * self.length, self.length)


class TextPart(Part):
    """A contiguous part of the text.

    tokens: (n,) uint8 or int32, in memory (resident) or mapped from a file. Window i holds the tokens
    from i·T + shift on, where T = length and shift = epoch_key mod T in training, so that every epoch
    cuts the text elsewhere, and 0 otherwise.
    len(part): ⌊n/T⌋ − 1 windows in training, so that each shift fits with its targets; else ⌊(n−1)/T⌋.
    targets: (N, T) the windows' targets at shift 0, a view of the tokens.
    rows: (N,) int64 where each window starts in the text, in characters.
    """

    def __init__(self, tokens: Tensor, length: int, start: int, shifted: bool, resident: bool = True) -> None:
        self.tokens, self.length, self.start, self.shifted = tokens, length, start, shifted
        count = max(0, len(tokens) // length - 1 if shifted else (len(tokens) - 1) // length)
        super().__init__(
            inputs=Windows(tokens, length, count, resident),
            targets=tokens[1 : count * length + 1].view(count, length),
            rows=torch.arange(count) * length + start,
        )

    def gather(self, index: Tensor, epoch_key: int = 0) -> tuple[Tensor, Tensor]:
        """Returns inputs and targets, both (B, T) int64; targets[:, t] follows inputs[:, t] in the text."""
        shift = epoch_key % self.length if self.shifted else 0
        block = _take(self.tokens, index * self.length + shift, self.length + 1)
        return block[:, :-1].contiguous(), block[:, 1:].contiguous()

    @property
    def nbytes(self) -> int:
        return self.tokens.nbytes

    def to(self, device: torch.device) -> TextPart:
        return TextPart(self.tokens.to(device), self.length, self.start, self.shifted)


def load(config: TextData) -> DataSet:
    """Reads a text file; the first part trains, the next validates, the last tests.

    The vocabulary is that of the training part; other characters become number 0, '\ufffd'.
    """
    path, length = os.path.expanduser(config.name), config.length
    if config.validation + config.test >= 1:
        raise UserError(
            f"data.validation={config.validation:g} and data.test={config.test:g} leave nothing to train on; "
            "their sum must be below 1."
        )
    total = sum(len(chunk) for chunk in code_points(path))
    if total == 0:
        raise UserError(f"{path}: the file is empty.")
    test, validation = int(total * config.test), int(total * config.validation)
    train = total - validation - test
    parts = [("training", train, 3 * length)]  # two windows at any shift
    parts += [("validation", validation, length + 1)] if config.validation else []
    parts += [("test", test, length + 1)] if config.test else []
    for name, characters, least in parts:
        if characters < least:
            raise UserError(
                f"{path}: the text has {total} characters, {characters} of them for the {name} part, which "
                f"needs {least} with data.length={length}; use a longer text or a smaller data.length."
            )
    characters = _vocabulary(path, train)
    if len(characters) == 2:
        raise UserError(f"{path}: the training part is the character {characters[1]!r} throughout.")
    tokens, resident = _tokens(path, characters, total, train)
    train_part = TextPart(tokens[:train], length, 0, shifted=True, resident=resident)
    validation_part = TextPart(
        tokens[train : train + validation], length, train, shifted=False, resident=resident
    )
    test_part = TextPart(
        tokens[train + validation :], length, train + validation, shifted=False, resident=resident
    )
    unknown = sum(int((chunk == 0).sum()) for chunk in tokens[train:].split(2**24))
    notes = []
    if unknown:
        notes.append(f"{unknown} of {total - train} characters after the training part are unknown to it")
    return DataSet(
        name=Path(path).stem,
        kind="text",
        task="text",
        train=train_part,
        validation=validation_part,
        test=test_part,
        preparation={"source": "text", "classes": characters, "length": length},
        input_shape=(length,),
        outputs=len(characters),
        classes=characters,
        fingerprint=file_fingerprint(path),
        notes=notes,
    )


def read_new(preparation: dict[str, Any], path: str, targets: bool) -> NewData:
    """Reads a text: as one prompt (1, characters) to go on from, or, with targets, as windows (N, T)."""
    import polars

    path = os.path.expanduser(path)
    text = "".join(chunk.astype("<u4").tobytes().decode("utf-32-le") for chunk in code_points(path))
    if not text:
        raise UserError(f"{path}: the file is empty; it must hold the beginning of a text.")
    tokens = encode(text, preparation)
    notes = _unknown(text, tokens, "text" if targets else "prompt")
    if not targets:
        return NewData(TensorInputs(tokens[None]), polars.DataFrame({"text": [text]}), notes=notes)
    length = preparation["length"]
    if len(tokens) <= length:
        raise UserError(
            f"{path}: the text has {len(tokens)} characters; evaluating needs {length + 1} (data.length + 1)."
        )
    part = TextPart(tokens, length, 0, shifted=False)
    inputs, following = part.gather(torch.arange(len(part)))
    return NewData(TensorInputs(inputs), polars.DataFrame({"start": part.rows.numpy()}), following, notes)


def _unknown(text: str, tokens: Tensor, what: str) -> list[str]:
    """Returns a note on the characters of a text that training did not have."""
    unknown = [c for i in (tokens == 0).nonzero()[:, 0].tolist() if (c := text[i]) != UNKNOWN]
    if not unknown:
        return []
    different = list(dict.fromkeys(unknown))
    shown = ", ".join(repr(c) for c in different[:5]) + (", …" if len(different) > 5 else "")
    many = (
        f"{len(unknown)} characters of the {what} are"
        if len(unknown) > 1
        else f"1 character of the {what} is"
    )
    return [
        f"{many} unknown to the model ({shown}), and {'become' if len(unknown) > 1 else 'becomes'} {UNKNOWN}."
    ]


def encode(text: str, preparation: dict[str, Any]) -> Tensor:
    """Returns the characters' numbers, (len(text),) int64; unknown ones are 0."""
    # surrogatepass: half a pair typed at a prompt is one more unknown character, not a crash
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    return torch.from_numpy(_lookup(preparation["classes"], np.dtype(np.int64))[points])


def decode(tokens: Tensor, preparation: dict[str, Any]) -> str:
    """Returns the text of character numbers (n,); the inverse of `encode` where all are known."""
    characters = preparation["classes"]
    return "".join(characters[token] for token in tokens.tolist())


def code_points(path: str) -> Iterator[np.ndarray]:
    """Yields the characters' code points, a chunk of the file at a time; UserError if it is not UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    done = 0
    try:
        with open(path, "rb") as file, counted(f"reading {path}", os.path.getsize(path)) as advance:
            first = True
            while block := file.read(CHUNK_BYTES):
                advance(len(block))
                waiting = len(decoder.getstate()[0])  # bytes of a character that the last chunk cut
                try:
                    text = decoder.decode(block)
                except UnicodeDecodeError as error:
                    raise _not_utf8(path, done - waiting + error.start, first and block[:2]) from error
                done += len(block)
                if first and text.startswith("\ufeff"):  # a byte-order mark is not part of the text
                    text = text[1:]
                first = False
                yield np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
            rest = len(decoder.getstate()[0])
            if rest:
                raise UserError(
                    f"{path}: the file ends inside a character at byte {done - rest}; is it complete?"
                )
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file.") from error
    except OSError as error:
        raise UserError(f"{path}: the file cannot be read ({error.strerror}).") from error


def _not_utf8(path: str, offset: int, start: bytes | bool) -> UserError:
    encoding = "UTF-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "LATIN1"
    return UserError(
        f"{path}: not UTF-8 text at byte {offset}; convert it, e.g. `iconv -f {encoding} -t UTF-8 "
        f"{os.path.basename(path)} > new.txt`."
    )


def _vocabulary(path: str, train: int) -> list[str]:
    """Returns the unknown character and those of the first `train` ones, by code point."""
    seen = np.zeros(_CODE_POINTS, dtype=bool)
    left = train
    for chunk in code_points(path):
        seen[chunk[:left]] = True
        left -= min(left, len(chunk))
        if not left:
            break
    seen[ord(UNKNOWN)] = False
    return [UNKNOWN, *map(chr, np.flatnonzero(seen).tolist())]


def _lookup(characters: list[str], dtype: np.dtype) -> np.ndarray:
    """Returns the table from code point to number."""
    table = np.zeros(_CODE_POINTS, dtype=dtype)
    table[[ord(character) for character in characters]] = np.arange(len(characters))
    return table


def _tokens(path: str, characters: list[str], total: int, train: int) -> tuple[Tensor, bool]:
    """Returns the whole text's tokens (total,), and whether they are in memory."""
    dtype = np.dtype(np.uint8 if len(characters) <= 256 else np.int32)
    table = _lookup(characters, dtype)
    if total * dtype.itemsize < MAP_BYTES_FROM:
        return torch.from_numpy(np.concatenate([table[chunk] for chunk in code_points(path)])), True

    def write(to: Path) -> None:
        with open(to, "wb") as file:
            for chunk in code_points(path):
                file.write(table[chunk].tobytes())

    file = cached(path, ".tokens", write, key=str(train))  # the vocabulary follows from the file and `train`
    mapped = np.memmap(file, dtype, "r", shape=(total,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch cannot mark a tensor as read-only; nobody writes to this one
        return torch.from_numpy(mapped), False


def _take(tokens: Tensor, start: Tensor, length: int) -> Tensor:
    """Returns tokens[start : start + length] for each start (B,), as (B, length) int64."""
    return tokens.unfold(0, length, 1).index_select(0, start).to(torch.int64)
