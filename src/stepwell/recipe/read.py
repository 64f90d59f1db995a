"""From a YAML file and `key=value` words to a checked recipe."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from stepwell.data.sources import BUNDLED, source_of
from stepwell.errors import UserError
from stepwell.nn.beginning import SourcesModel
from stepwell.recipe import complaints
from stepwell.recipe.schema import (
    CHOICES,
    DEFAULT_NAMES,
    PLAIN,
    THE_SOURCES,
    Recipe,
    choose,
    default_model,
    default_schedule,
)
from stepwell.setting import ALONE, setting_of

SECTIONS = (*CHOICES, *PLAIN)

# What reading YAML raises: besides its own errors those of int("9" * 5000) and of a thousand brackets.
_UNREADABLE = (yaml.YAMLError, ValueError, TypeError, RecursionError)


def read_recipe(path: str | Path | None = None, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Reads a recipe: the file's keys, over them `changes` ("optimizer.lr": 0.01), defaults elsewhere.

    `loss.name` and the length of training stay open until the data is known (see `resolve`).
    Raises UserError with one sentence for the first thing that is wrong.
    """
    tree = _tree(read_yaml(path) if path is not None else {}, f"{path}: ")
    for key, value in (changes or {}).items():
        if isinstance(value, Mapping) and key in SECTIONS:
            for inner, v in value.items():
                _put(tree, f"{key}.{inner}", v)
        else:
            _put(tree, key, value)
    where = f"{path}: " if path is not None and not changes else ""
    sections: dict[str, Any] = {}
    for name in tree:
        if name not in SECTIONS and name != "seed":
            raise UserError(where + complaints.unknown_key(name))
    data = tree.get("data", {})
    data_name = data.get("name", DEFAULT_NAMES["data"])
    names = {**DEFAULT_NAMES, "data": data_name, "model": None}
    for section in CHOICES:
        given = dict(tree.get(section, {}))
        if section == "model" and "name" not in given:
            begun = given.get("from") is not None
            given["name"] = THE_SOURCES if begun else default_model(source_of(str(data_name)))
        elif section == "loss" and "name" not in given:
            if given:
                key = next(iter(given))
                raise UserError(
                    f"{where}loss.{key} has no effect without loss.name=huber: remove it, or set that"
                )
            sections["loss"] = None
            continue
        elif section == "schedule":
            given.setdefault("name", default_schedule(tree.get("optimizer", {}).get("name")))
        given.setdefault("name", names.get(section))
        sections[section] = _check(section, given, where)
    for section in PLAIN:
        sections[section] = _check(section, tree.get(section, {}), where)
    try:
        return Recipe(**sections, **({"seed": tree["seed"]} if "seed" in tree else {}))
    except ValidationError as error:
        raise UserError(where + complaints.sentence("", Recipe, error)) from None


def parse_changes(words: Iterable[str]) -> dict[str, Any]:
    """Reads `key=value` words; a value is YAML, so lists are [64, 64] and an empty value is null."""
    changes: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UserError(
                f"'{word}' is neither a recipe file nor key=value: give for instance optimizer.lr=0.01 "
                "(no blanks)"
            )
        if key in changes:
            raise UserError(f"{key} is given twice: keep one")
        if key in ("data", "data.name") and text:  # a path may hold what YAML reads as a comment or a mapping
            changes[key] = text
            continue
        try:
            changes[key] = yaml.load(text, _Loader)
        except _UNREADABLE:
            raise UserError(
                f"{_cut(word)}: the value cannot be read; write lists as [64,64], quote odd text"
            ) from None
    return changes


def write_yaml(recipe: Recipe) -> str:
    """The recipe as YAML, every key written out; reading it gives the same recipe."""
    return yaml.dump(recipe.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9)


def _check(section: str, given: Mapping[str, Any], where: str) -> BaseModel:
    """Makes the section's object, or raises one sentence."""
    if section in PLAIN:
        kind = PLAIN[section]
    else:
        name = given["name"]
        if not isinstance(name, str):
            raise UserError(f"{where}{section}.name is empty: give a bundled set, a file or a folder")
        if section == "data":
            given = {**given, "name": name if name in BUNDLED else os.path.abspath(os.path.expanduser(name))}
            source_of(name)
        chosen = choose(section, name)
        if chosen is None:
            raise UserError(where + complaints.unknown_name(section, name))
        kind = chosen
    _refuse_keys_of_values(section, kind, given, where)
    try:
        return kind(**given)
    except ValidationError as error:
        raise UserError(where + complaints.sentence(section, kind, error, given.get("name"))) from None


def _refuse_keys_of_values(section: str, kind: type[BaseModel], given: Mapping[str, Any], where: str) -> None:
    """A value and keys below it go together in a setting alone."""
    for key, value in given.items():
        if not isinstance(value, dict) or ALONE not in value:
            continue
        field = kind.model_fields.get(key)
        if field is None and kind is SourcesModel:
            continue  # what its keys are is known later
        if field is None or setting_of(field.annotation) is None:
            below = next((k for k in value if k != ALONE), "")
            name = f"{section}.{key}"
            raise UserError(f"{where}{name}.{below}: {name} is a value and has no keys of its own")


def _tree(raw: Any, where: str) -> dict[str, Any]:
    """Turns what the YAML file says into sections; a section given as one word is its name."""
    tree: dict[str, Any] = {}
    if not isinstance(raw, dict):
        raise UserError(f"{where}a recipe has sections such as 'optimizer:', with keys below them")
    try:
        for key, value in raw.items():
            if isinstance(value, dict):
                for inner, v in value.items():
                    _put(tree, f"{key}.{inner}", v)
                tree.setdefault(str(key), {})
            elif value is None and key in SECTIONS:
                tree[str(key)] = {}
            else:
                _put(tree, str(key), value)
    except UserError as error:
        raise UserError(f"{where}{error}") from None
    return tree


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Sets `section.key…` in the tree; `section` alone sets its name, `seed` itself."""
    section, _, rest = key.partition(".")
    if section == "seed" and not rest:
        tree["seed"] = value
        return
    if section not in SECTIONS:
        raise UserError(complaints.unknown_key(key))
    if not rest:
        if section in PLAIN:
            raise UserError(f"{section} is a section: give one of its keys, such as {_example(section)}")
        rest = "name"
    if rest == "name" and section != "data" and not isinstance(value, str):
        shown = "null" if value is None else value
        raise UserError(f"{section}.name={shown} must be a name, such as {next(iter(CHOICES[section]))}")
    place = tree.setdefault(section, {})
    *path, last = rest.split(".")
    for step in path:
        if not isinstance(place.setdefault(step, {}), dict):
            place[step] = {ALONE: place[step]}
        place = place[step]
    if isinstance(place.get(last), dict) and place[last] and not isinstance(value, dict):
        place[last][ALONE] = value
        return
    # A data set may be called by a number or a word that YAML takes for another type (data=2024).
    place[last] = str(value) if section == "data" and rest == "name" and value is not None else value


def _cut(word: str) -> str:
    return word if len(word) <= 60 else word[:57] + "…"


def _example(section: str) -> str:
    return f"{section}.{next(iter(PLAIN[section].model_fields))}"


def read_yaml(path: str | Path) -> Any:
    """What a YAML file says, unchecked; {} of an empty one. UserError where it cannot be read."""
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such recipe file") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; save the recipe as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: the recipe cannot be read ({error.strerror})") from None
    try:
        raw = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}, line {line}: not valid YAML ({error.problem})") from None
    except yaml.YAMLError:
        raise UserError(f"{path}: not valid YAML; it has characters that text does not have") from None
    except _UNREADABLE:
        raise UserError(f"{path}: a value is too long, nested too deeply, or not what its tag says") from None
    return {} if raw is None else raw


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values: only true and false are booleans, and 1e-3 is a number.

    PyYAML follows YAML 1.1, where `no` is false (a column may be called so) and 1e-3 is text.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own attribute

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be a plain word", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


class _Dumper(yaml.SafeDumper):
    """Short lists on one line, and only the values quoted that `_Loader` would read otherwise."""

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        return super().represent_sequence(tag, sequence, flow_style=True)
