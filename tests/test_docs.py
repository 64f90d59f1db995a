"""The documentation runs: every command, every Python block, every link, and the tables made from the code.

`python tests/test_docs.py --update` writes these tables, and the numbers that commands print, anew.

How a page is run, block by block, in an empty folder with the repository's `examples/` in it:
- ```sh and ```console: each line that begins with `stepwell` or `$ stepwell` is run in this process. The
  lines below a `$` are what it must print: measured numbers may differ, `…` stands for any lines. A first
  line that begins with "stepwell: " is an error message, and the command must fail.
- ```python: run, with one namespace a page.
- ```LANGUAGE FILE: written to the file.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import itertools
import re
import runpy
import shlex
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from stepwell import cli, optim
from stepwell.errors import UserError
from stepwell.metrics import by_task as metrics
from stepwell.optim.optimizer import RuleOptimizer
from stepwell.recipe import describe
from stepwell.rules import RULES
from stepwell.rules.describe import facts_of

ROOT = Path(__file__).resolve().parent.parent
# results.md and benchmarks.md tell what long runs gave; each figure there stands beside its command.
MEASURED = ("results.md", "benchmarks.md")
PAGES = [ROOT / "README.md", *(p for p in sorted((ROOT / "docs").glob("*.md")) if p.name not in MEASURED)]
LINKING = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
# Not run: what installs, builds or changes the checkout, and long trainings on data that is not ours.
NOT_RUN = ("make", "pip", "git", "tensorboard", "python docs/images/make.py", "python tests/test_docs.py")


class Block(NamedTuple):
    """A fenced block: ```language file."""

    language: str
    file: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """The page's fenced blocks in order."""
    fence = re.compile(r"^```(\w*)[ ]*(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    text = page.read_text(encoding="utf-8")
    assert len(re.findall("^```", text, re.MULTILINE)) == 2 * len(fence.findall(text)), f"{page}: odd fences"
    for found in fence.finditer(text):
        line = text[: found.start()].count("\n") + 1
        yield Block(found[1], found[2], found[3], line)


class Command(NamedTuple):
    """A line to run, and the lines it is said to print (None: nothing is said)."""

    words: str
    printed: list[str] | None


def commands(block: Block) -> Iterator[Command]:
    """The commands of a sh or console block; of what `make train` prints, the command it runs."""
    lines = block.text.replace("\\\n", " ").splitlines()
    if block.language == "sh":
        plain = (line.partition("  #")[0].strip() for line in lines)
        yield from (Command(line, None) for line in plain if line and not line.startswith("#"))
        return
    words, printed = "", []
    for line in lines:
        if line.startswith(("$ ", ".venv/bin/")):
            if words:
                yield Command(words, printed)
            words, printed = line.removeprefix("$ ").removeprefix(".venv/bin/"), []
        else:
            printed.append(line)
    yield Command(words, printed)


def run(words: str) -> tuple[str, int]:
    """Runs `stepwell …` or `python examples/…`; returns what it printed and its exit code."""
    program, *arguments = shlex.split(words)
    before, streams, code = sys.argv, io.StringIO(), 0
    sys.argv = [program, *arguments]
    try:
        with contextlib.redirect_stdout(streams), contextlib.redirect_stderr(streams):
            if program == "python":
                sys.argv = arguments
                runpy.run_path(arguments[0], run_name="__main__")
            else:
                assert program == "stepwell", f"this command is not tested: {words}"
                cli.main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    finally:
        sys.argv = before
    return streams.getvalue(), code


def same_form(said: list[str], printed: str) -> bool:
    """Whether the said lines are printed in this order, one after the other but for `…`.

    Whole numbers must be the same; measured ones (with a point, in an interval, a difference) may differ.
    """

    def form(line: str) -> str:
        measured = r"\S+ \[[^]]*\]|\d[\d,]*\.\d+(e[-+]\d+)?|(?<=update )\d+|(?<=original by )\S+"
        return re.sub(measured, "#", " ".join(line.split()))

    groups = itertools.groupby((form(line) for line in said if line), key=lambda line: line == "…")
    parts = ["^" + re.escape("\n".join(lines)) + "$" for dots, lines in groups if not dots]
    whole = "\n".join(form(line) for line in printed.splitlines())
    return re.search(r"(?s:.*?)".join(parts), whole, re.MULTILINE) is not None


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder with examples/ in it; what is imported from there is forgotten afterwards."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPWELL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] in ("examples", "my_model")]:
        del sys.modules[name]


def play(page: Path) -> Iterator[tuple[str, Command, str, int]]:
    """Runs the page in the current directory; yields each command with what it printed and its exit code."""
    names: dict[str, Any] = {"__name__": page.stem}
    for block in blocks(page):
        where = f"{page.name}, line {block.line}"
        if block.file:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile("\n" * block.line + block.text, str(page), "exec"), names)
        elif block.language in ("sh", "console"):
            for command in commands(block):
                without = ".onnx" in command.words and find_spec("onnxruntime") is None
                if not (without or command.words.startswith(NOT_RUN)):
                    yield where, command, *run(command.words)
        else:
            assert block.language in ("text", "yaml", "csv", "json", ""), f"{where}: not run"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_runs(page: Path, place: Path):
    """Every command and every Python block of the page does what the page says."""
    for where, (words, said), printed, code in play(page):
        wrong = bool(said) and said[0].startswith("stepwell: ")
        assert (code != 0) == wrong, f"{where}: {words} ended with {code}:\n{printed}"
        assert not said or same_form(said, printed), f"{where}: {words} printed:\n{printed}"


def test_examples_run(place: Path):
    """Every script in examples/ runs; flats.py writes the very tables that lie beside it."""
    before = {path: path.read_bytes() for path in (ROOT / "examples").glob("*.csv")}
    for script in sorted((ROOT / "examples").glob("*.py")):
        assert run(f"python {script}")[1] == 0
    assert all(path.read_bytes() == content for path, content in before.items())


def slug(heading: str) -> str:
    """A heading's anchor as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", LINKING, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path):
    """Links to files and headings of ours resolve, pictures too."""
    text = re.sub(r"(?ms)^```.*?^```$", "", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"(?m)^#+ (.*)$", file.read_text(encoding="utf-8"))
            assert anchor in map(slug, headings), f"{page.name}: {target}"


BEGIN, END = "<!-- made from the code by: python tests/test_docs.py --update -->", "<!-- end -->"


def key_table() -> str:
    """The recipe's keys as Markdown, a table a section."""
    text, rows = "", describe()
    for section, group in itertools.groupby(rows, key=lambda row: row["key"].partition(".")[0]):
        text += f"\n### {section}\n\n| key | with | default | range | meaning |\n|---|---|---|---|---|\n"
        for row in group:
            cells = [
                f"`{row['key']}`",
                ", ".join(row["applies_to"]),
                row["default"],
                row["range"],
                row["help"],
            ]
            text += f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"
    return f"{BEGIN}\n{text}\n{END}"


CLASSES: dict[str, type] = {
    name: kind
    for name in sorted(optim.__all__, key=str.lower)
    if isinstance(kind := getattr(optim, name), type) and issubclass(kind, torch.optim.Optimizer)
}
# The arguments that may choose another rule than a class's first.
CHOICES = {
    "momentum": 0.9,
    "nesterov": True,
    "centered": True,
    "amsgrad": True,
    "bias_correction": False,
    "eps_inside": True,
}
CHOSEN = [dict(some) for n in range(4) for some in itertools.combinations(CHOICES.items(), n)]


def optimizers() -> list[tuple[str, dict[str, Any], str]]:
    """Every optimizer, and each of its rules: class, the fewest arguments that choose the rule, its name.

    The name is "" where a class has no rule, and the class where a rule has none.
    """
    found = []
    for name, kind in CLASSES.items():
        if not issubclass(kind, RuleOptimizer):
            found.append((name, {}, ""))
            continue
        for chosen in CHOSEN:
            if chosen.keys() <= inspect.signature(kind).parameters.keys():
                try:
                    made = kind([torch.zeros(2, 2, requires_grad=True)], **chosen)
                except UserError:  # they do not go together
                    continue
                rule = made.rule_of(made.param_groups[0]).name
                if not chosen or rule not in {row[2] for row in found}:
                    found.append((name, chosen, rule))
    return found + [("", {}, rule) for rule in RULES.keys() - {row[2] for row in found}]


def optimizer_table() -> str:
    """The optimizers as Markdown: class, rule, formula, and whether torch has it."""
    text = f"{BEGIN}\n\n| class in `sw.optim` | rule | formula | in torch |\n|---|---|---|---|\n"
    for name, chosen, rule in optimizers():
        arguments = ", ".join(f"{key}={value}" for key, value in chosen.items())
        call = f"`{name}({arguments})`" if chosen else f"`{name}`"
        # AdamW has Adam's rule, and says itself what it adds.
        own = name == "AdamW" or not rule
        formula = inspect.getdoc(CLASSES[name]) or "" if own else facts_of(RULES[rule])["formula"]
        formula = " ".join(formula.partition("\n\n")[0].split())
        # What three rules share stands at the top of their file, and on this page in their section.
        formula = formula.replace("at the top of the file", "[below](#without-a-schedule)")
        theirs = getattr(torch.optim, name or "-", None)
        same = theirs is not None and chosen.keys() <= inspect.signature(theirs).parameters.keys()
        call = call if name else f'`from_rule(sw.rules.RULES["{rule}"])`'
        cells = [call, f"`{rule}`" if rule else "", formula, "yes" if same else ""]
        text += f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"
    return f"{text}\n{END}"


TABLES = {"recipe.md": key_table, "optimizers.md": optimizer_table}


def with_table(page: Path) -> str:
    """The page's text with the table between its two marks made anew."""
    text = page.read_text(encoding="utf-8")
    if page.name not in TABLES:
        return text
    head, begin, rest = text.partition(BEGIN)
    assert begin, f"{page.name} has no place for its table"
    return head + TABLES[page.name]() + rest.partition(END)[2]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_that_of_the_code(name: str):
    """docs/recipe.md has the keys, defaults, ranges and words of `stepwell recipe`; docs/optimizers.md
    every optimizer and every rule, with its formula."""
    page = ROOT / "docs" / name
    assert page.read_text(encoding="utf-8") == with_table(page), "run: python tests/test_docs.py --update"


@pytest.mark.parametrize("task", ["regression", "binary", "multi-class", "multi-label", "text"])
def test_metrics_page_names_every_metric(task: str):
    """Each metric of a result is explained in docs/metrics.md."""
    draw = np.random.default_rng(0)
    targets = draw.integers(0, 12, (40, 3))
    if task == "regression":
        outputs, targets = draw.normal(size=(40, 1)), draw.normal(size=(40, 1))
    elif task in ("binary", "multi-class"):
        outputs = draw.dirichlet(np.ones(2 if task == "binary" else 12), 40)
        targets = targets[:, 0] % outputs.shape[1]
    else:
        outputs = draw.integers(0, 12, (40, 3)) if task == "text" else draw.random((40, 3))
        targets = targets if task == "text" else targets % 2
    loss = draw.random((40, 3) if task == "text" else 40)
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    found = metrics.full(task, outputs, targets, loss, [str(k) for k in range(12)])
    assert not [name for name in found if f"`{name}`" not in page]


def renewed(said: list[str], printed: str) -> list[str]:
    """The said lines with the numbers that are printed now."""

    def words(line: str) -> str:
        return re.sub(r"[\d.,]+", "#", " ".join(line.split()))

    lines = iter(printed.splitlines())
    found = (
        next((new for new in lines if words(new) == words(old)), old) if old != "…" else old for old in said
    )
    return list(found)


def update(page: Path) -> None:
    """Writes the page anew with today's table and today's numbers in what commands print."""
    text = with_table(page)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("examples").symlink_to(ROOT / "examples")
        for _, (_, said), printed, _ in play(page):
            if said and not same_form(said, printed):
                text = text.replace("\n".join(said), "\n".join(renewed(said, printed)), 1)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--update"]:
        sys.exit(__doc__)
    for each in PAGES:
        update(each)
