"""README.md of a pushed model: the hub's front matter, and a card for people."""

from __future__ import annotations

import html
import re
from typing import Any

import yaml

from stepwell.report.wording import metric
from stepwell.sharing.card import UNKNOWN, chosen, plain, read_estimate

_SHOWN = 20  # classes by name

_TASKS = {
    ("image", True): "image-classification",
    ("features", True): "tabular-classification",
    ("features", False): "tabular-regression",
    ("text", True): "text-generation",
}

_DOES = {
    "regression": "predicts {targets}",
    "binary": "tells {count} classes apart",
    "multi-class": "tells {count} classes apart",
    "multi-label": "tells which of {count} labels apply",
    "text": "goes on from a text, a character at a time, and knows {count} characters",
}

_TAKES = {
    "features": "{size} features a row",
    "image": "images of {size} (channels × height × width)",
    "sequence": "sequences of {size} (steps × features)",
    "text": "text, of which it sees the last {size} characters",
}


def readme(config: dict[str, Any]) -> str:
    """The card of a model, from the content of its config.json, which `pushed.trained` has taken.

    Its texts may be a stranger's: none of them is markup here.
    """
    facts, recipe = config["card"], config["recipe"]
    name, data = plain(facts.get("name"), 80), plain(facts["data"]["name"], 80)
    takes = _TAKES[config["kind"]].format(size="×".join(map(str, config["input_shape"])))
    does = _DOES[config["task"]].format(
        targets=", ".join(_escaped(t) for t in config["targets"]), count=len(config["classes"])
    )
    model, versions = recipe["model"], config["versions"]
    begun = f"; it began with the weights of {_escaped(model['from'])}" if model.get("from") else ""
    gives = "values" if config["task"] == "regression" else "probabilities"
    licence = facts.get("licence") or UNKNOWN
    said = (
        "Licence: unknown. Ask before you use it." if licence == UNKNOWN else f"Licence: {_escaped(licence)}."
    )
    settings = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    fence = "`" * (1 + max([2, *map(len, re.findall("`+", settings))]))  # longer than any in it
    networks = facts.get("networks")
    several = f" in {networks} networks whose predictions are averaged" if type(networks) is int else ""
    sizes = [f"{facts['data'][p]:,} {word} samples" for p, word in _PARTS.items() if facts["data"].get(p)]
    return f"""---
{_front(config, licence)}---

# {_escaped(name)}

This {_escaped(model["name"])} {does}.

- It takes {takes}.
- It has {facts["parameters"]:,} weights{several}, trained on {_escaped(data)}{begun}.
- It was finished on {_escaped(facts["date"])} with Stepwell {_escaped(versions.get("stepwell"))}.
- {said}

## Result

{_results(facts)}
## Use

```sh
stepwell pull FOLDER {_word(name)}    # FOLDER: where this file lies, or hf:ORG/NAME
stepwell predict {_word(name)} {_example(config)}
stepwell train data=… model.from={_word(name)}   # the same body for other classes
```

```python
import stepwell as sw

model = sw.load("{_word(name)}")   # a torch module: from raw inputs to {gives}
```

## Data

{_escaped(data)}: {", ".join(sizes)}. {_classes(config)}

The model knows what is in this data and nothing else; it answers with confidence outside of it too.

## Training

{fence}yaml
{settings}{fence}

Nothing in this folder is run when it is read: `config.json` and `model.safetensors` are data. Their digest,
{config["digest"]}, tells damage; it does not tell who wrote them.
"""


_PARTS = {"train": "training", "validation": "validation", "test": "test"}


def _front(config: dict[str, Any], licence: str) -> str:
    """The YAML that the hub reads."""
    facts, kind = config["card"], (config["kind"], config["task"] != "regression")
    data = plain(facts["data"]["name"], 80)
    key, part, found = chosen(facts)
    about: dict[str, Any] = {
        "license": plain(licence, 40).lower(),
        "library_name": "stepwell",
        "tags": ["stepwell", config["recipe"]["model"]["name"], config["task"]],
    }
    if kind in _TASKS:
        about["pipeline_tag"] = _TASKS[kind]
    if found is not None:
        task = _TASKS.get(kind, "other")
        result = {
            "task": {"type": task},
            "dataset": {"name": data, "type": data, "split": part},
            "metrics": [{"type": key, "name": metric(key).label, "value": found.value}],
        }
        about["model-index"] = [{"name": plain(facts.get("name"), 80), "results": [result]}]
    return yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=110)


def _results(facts: dict[str, Any]) -> str:
    """A row a metric with its 95 % interval."""
    part = "test" if facts.get("test") else "validation"
    rows = []
    for key, entry in (facts.get(part) or {}).items():
        name, _, target = key.partition("/")
        if (found := read_estimate(entry)) is not None:
            value, limits = metric(name).written(found)
            label = _escaped(metric(name).label) + (f" of {_escaped(target)}" if target else "")
            rows.append(f"| {label} | {value} | {limits or '–'} |")
    if not rows:
        return "It was not measured: the data had no test part.\n"
    head = f"On the {part} part:\n\n| | value | 95 % interval |\n|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def _classes(config: dict[str, Any]) -> str:
    names = config["classes"]
    if config["task"] in ("regression", "text") or not names:
        return ""
    shown = ", ".join(map(_escaped, names[:_SHOWN]))  # in `` a backslash would show
    return f"Classes: {shown}{f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''}."


def _example(config: dict[str, Any]) -> str:
    """A file of the kind that the model takes."""
    endings = {"npz": "new.npz", "images": "IMAGES/", "text": "beginning.txt"}
    return endings.get(config["preparation"]["source"], "new.csv")


def _escaped(text: Any) -> str:
    """A text of the data's inside of Markdown: one line, and none of it is markup."""
    shown = html.escape(plain(text, 80), quote=False)
    for letter in "\\`*_[]|#~":
        shown = shown.replace(letter, f"\\{letter}")
    return shown


def _word(name: str) -> str:
    """The name as a word of a command."""
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".-") or "model"
