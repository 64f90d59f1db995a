"""Notes on choices that may change what an image shows, so that its label is wrong."""

from __future__ import annotations

from stepwell.data.augment.configs import AugmentConfig
from stepwell.data.dataset import DataSet

STEEP = 45.0  # degrees; beyond it a turned letter is nearer to another one's upright (N and Z, 6 and 9)

_EXAMPLES = {  # mirrored, upside down, turned
    "digits": ("a 2 is nearly a 5", "a 6 is nearly a 9", "a 6 is a 9"),
    "letters": ("a b is a d", "a p is a b", "an N is a Z"),
}


def notes(config: AugmentConfig, data: DataSet) -> list[str]:
    """A note for each choice that turns some digit or letter into another one; see `characters`.

    Pictures of things keep their label however they are turned or mirrored: no note for those. Whether
    it helps that a horse stands on its head is for the validation part to say.
    """
    what = characters(data)
    if not what:
        return []
    mirrored, upside_down, turned = _EXAMPLES[what]
    found = []
    if config.flip is not None:
        found.append(_note("flip", what, f"mirrored {mirrored}", "remove it"))
    if config.vertical_flip is not None:
        found.append(_note("vertical_flip", what, f"upside down {upside_down}", "remove it"))
    if config.rotation is not None and config.rotation.degrees > STEEP:
        key = f"rotation={config.rotation.degrees:g}"
        found.append(_note(key, what, f"turned far {turned}", f"give at most {STEEP:g}"))
    if config.test_time is not None and config.test_time.views != "five-crop":
        key = f"test_time={config.test_time.views}"
        found.append(
            _note(
                key,
                what,
                f"mirrored {mirrored}",
                "remove it, or give five-crop if the network was trained with crops",
            )
        )
    return found


def characters(data: DataSet) -> str:
    """ "digits" or "letters", where the classes are such; "" where they are not, or nobody can know.

    Letters: every class is called by one character, some by a letter. Digits: every class is called by
    one digit and the images are grey. Colored images whose classes are 0 … 9 are taken for things with
    numbers for names, as CIFAR-10 is often stored; grey ones may be too, so the note says "if".
    """
    if data.kind != "image" or not data.classes or any(len(name) != 1 for name in data.classes):
        return ""
    if any(name.isalpha() for name in data.classes):
        return "letters"
    grey = data.input_shape[0] == 1
    return "digits" if grey and all(name.isdigit() for name in data.classes) else ""


def _note(key: str, what: str, why: str, remedy: str) -> str:
    if key.startswith("test_time"):
        what_it_does, look = "looks at mirror images", ""
    else:
        what_it_does, look = (
            "may change the label",
            "look with stepwell inspect --augmentation FILE.png, and ",
        )
    return (
        f"augment.{key} {what_it_does}: if the images are {what}, as the names of the classes say, {why}; "
        f"{look}{remedy}"
    )
