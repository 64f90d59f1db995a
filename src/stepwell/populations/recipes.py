"""Members from recipes: what is read once for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stepwell.data import sources
from stepwell.data.dataset import DataSet
from stepwell.errors import UserError
from stepwell.nn import registry
from stepwell.nn.network import Network, Predictor
from stepwell.populations.member import Member, Outcome
from stepwell.recipe import read_recipe, resolve
from stepwell.training import model_file


def members_of(
    recipe: Path | None, each: Iterable[Mapping[str, Any]], common: Mapping[str, Any]
) -> list[Member]:
    """One member for each mapping of keys, over those that are common; equal `data` is loaded once.

    Raises UserError, which says the member's number, before anything is trained.
    """
    loaded: dict[str, DataSet] = {}
    made = []
    for number, own in enumerate(each):
        try:
            asked = read_recipe(recipe, {**common, **own})
            key = asked.data.model_dump_json()
            if key not in loaded:
                loaded[key] = sources.load(asked.data)
            made.append(Member(resolve(asked, loaded[key]), loaded[key]))
        except UserError as error:
            raise UserError(f"model {number}: {error}") from None
    if not made:
        raise UserError("a population needs at least one model: give a list of changes, one for each")
    return made


def network_of(member: Member, outcome: Outcome) -> Predictor | None:
    """The trained model in evaluation mode: raw inputs to probabilities or target values."""
    if outcome.weights is None:
        return None
    recipe, data = member.recipe, member.data
    body = registry.build(recipe.model, data.input_shape, data.outputs, data.kind)
    network = Network.of(body, data)
    network.load_state_dict(outcome.weights)
    network.views = model_file.views(recipe.augment)
    model = Predictor(network).eval()
    model.classes, model.targets = data.classes, data.targets
    return model
