"""The house's own rules: import order, quick start, docstrings, nothing unpickled, nothing of one machine."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "stepwell"
FILES = sorted(SOURCE.rglob("*.py"))

# A module may import from a lower floor, and from its own; optim, schedules, nn and data share one.
FLOORS = [
    {"errors", "progress", "setting"},
    {"rules"},
    {"engine", "curvature"},
    {"optim", "schedules", "nn", "data"},
    {"recipe", "metrics"},
    {"training"},
    {"populations"},
    {"report"},
    {"sharing"},
    {"library", "sklearn"},
    {"cli"},
    {"", "__main__"},  # the package itself, which fetches its names when they are asked for
]
FLOOR = {part: number for number, floor in enumerate(FLOORS) for part in floor}

HEAVY = ("torch", "numpy", "scipy", "sklearn", "polars", "pydantic", "yaml", "plotly", "matplotlib", "PIL")


def _module(path: Path) -> str:
    """stepwell/nn/mlp.py is stepwell.nn.mlp, stepwell/nn/__init__.py is stepwell.nn."""
    return ".".join(("stepwell", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {_module(path): path for path in FILES}


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(path: Path) -> set[str]:
    """The modules of ours that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import from the package's full name"
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                found.add(whole if whole in MODULES else node.module or "")
    return found & MODULES.keys()


def _part(module: str) -> str:
    return module.removeprefix("stepwell").removeprefix(".").partition(".")[0]


def test_imports_run_downward():
    """rules → engine, curvature → optim, schedules, nn, data → recipe → training → … → cli, as in FLOORS."""
    upward = [
        f"{module} imports {other}"
        for module, path in MODULES.items()
        for other in sorted(_imports(path))
        if FLOOR[_part(other)] > FLOOR[_part(module)]
    ]
    assert not upward


def test_no_two_modules_import_each_other():
    """The graph of imports has no cycle, not even inside one floor or by an import in a function."""
    graph = {module: _imports(path) - {module} for module, path in MODULES.items() if module != "stepwell"}
    cycle: list[str] = []
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = error.args[1]
    assert len(graph) > 50 and not cycle, " → ".join(cycle)


def _loaded(code: str) -> set[str]:
    """The heavy packages that are loaded after `code` ran in a fresh interpreter."""
    code += f"\nimport sys; print('loaded', *[m for m in {HEAVY!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split()[1:])


HELP = """
import sys, stepwell.cli
sys.argv = ["stepwell", "--help"]
try:
    stepwell.cli.main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize("code", ["import stepwell", HELP], ids=["import", "help"])
def test_starting_loads_nothing_heavy(code: str):
    """`import stepwell` and `stepwell --help` load neither torch nor any other large package."""
    assert not _loaded(code)


def _best_of_five(arguments: list[str]) -> float:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize(
    ("arguments", "seconds"),
    [(["-c", "import stepwell"], 0.2), (["-m", "stepwell", "--help"], 0.5)],
    ids=["import", "help"],
)
def test_starting_is_quick(arguments: list[str], seconds: float):
    """`import stepwell` takes less than 0.2 s and `stepwell --help` less than 0.5 s.

    Both on a machine that starts an empty Python in 20 ms; a slower or busy one has as much more time.
    """
    slack = max(1.0, _best_of_five(["-c", ""]) / 0.02)
    assert _best_of_five(arguments) < seconds * slack


def test_training_does_not_load_torchs_compiler(tmp_path):
    """It takes a second, which neither a run nor a population has a use for."""
    code = (
        "import sys, stepwell as sw; from pathlib import Path\n"
        "from stepwell.populations.member import Member; from stepwell.populations.train import train\n"
        "from stepwell.recipe import read_recipe, resolve; from stepwell.data import sources\n"
        "keys = {'data': 'iris', 'training.updates': 2}\n"
        f"sw.train(keys, out={str(tmp_path / 'run')!r}, quiet=True)\n"
        "asked = read_recipe(None, keys); data = sources.load(asked.data); one = resolve(asked, data)\n"
        "train([Member(one.model_copy(update={'seed': seed}), data) for seed in range(2)])\n"
        "assert not {'torch._dynamo', 'torch._inductor'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_every_file_says_what_it_is():
    """Every source file with code in it has a docstring."""
    assert not [str(p) for p in FILES if _tree(p).body and not ast.get_docstring(_tree(p))]


def test_every_public_name_has_a_docstring():
    """Public functions and classes of a module say what they do."""
    missing = [
        f"{module}.{node.name}"
        for module, path in MODULES.items()
        for node in _tree(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        if not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert not missing


def test_no_file_is_called_utils():
    """A file has the name of what it does."""
    assert not [str(p) for p in FILES if p.stem in ("util", "utils", "helpers", "misc", "common")]


def test_nothing_is_unpickled_or_executed():
    """Data is read, never run: no pickle, torch.load, eval or exec in the sources."""
    forbidden = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    calls = {"eval", "exec", "torch.load", "torch.jit.load", "yaml.unsafe_load", "yaml.full_load"}
    found = []
    for path in FILES:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Import):
                names = {name.name.partition(".")[0] for name in node.names} & forbidden
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0]} & forbidden
            elif isinstance(node, ast.Call):
                names = {ast.unparse(node.func)} & calls
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                names = set() if ast.unparse(node.value) == "False" else {"allow_pickle"}
            else:
                names = set()
            found += [f"{path.name}: {name}" for name in names]
    assert not found


def test_numpy_files_are_opened_without_pickle():
    """Every np.load says allow_pickle=False, whatever NumPy's default is."""
    for path in FILES:
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
                assert "allow_pickle" in {k.arg for k in node.keywords}, f"{path.name}, line {node.lineno}"


def _tracked() -> list[Path]:
    found = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in found.stdout.split("\0") if name]


MACHINE = re.compile(
    r"/(?:home|Users|root|work|mnt)/\w|[A-Z]:\\\\?Users"  # somebody's folders
    r"|index-url|artifactory|nexus|pythonhosted|pypi\.\w|://\d+\.\d+\.\d+\.\d+|://localhost",  # and servers
    re.IGNORECASE,
)


def test_no_file_names_a_machine():
    """Tracked files hold no absolute path of somebody's machine and no package registry's host."""
    found = []
    for path in _tracked():
        if path == Path(__file__) or not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # an image
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in MACHINE.finditer(text)]
    assert not found


def test_readme_is_two_screens():
    """Two screens of 40 lines; the first commands are `make train` and `make test`."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 120
    commands = [line for line in lines if line.startswith(("make ", "stepwell ", "$ "))]
    assert [command.split("#")[0].strip() for command in commands[:2]] == ["make train", "make test"]


def test_contributing_is_one_screen():
    """Who wants to help reads one screen first."""
    assert len((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines()) <= 50
