"""Parts are built from the table alone, with arguments checked by name and type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medxfer.bundle.components import TABLE, build, check_components, resolve
from medxfer.bundle.parser import load_bundle
from medxfer.bundle.schema import Component
from medxfer.errors import ConfigError, UnsafeError


def part(target: str, **arguments: Any) -> Component:
    return Component(target=target, arguments=arguments, where="train.yaml:7, task")


@pytest.mark.parametrize("name", TABLE)
def test_every_row_is_there(name: str) -> None:
    found = resolve(part(name), TABLE[name].kind)

    assert callable(found)
    assert found.__name__ == TABLE[name].path.rpartition(".")[2]


def test_task_is_built() -> None:
    task = build(part("Classification", classes=["normal", "pneumonia"], gamma=1), "task")

    assert task.classes == ("normal", "pneumonia")


def test_nested_part_and_extra_arguments_reach_the_constructor() -> None:
    loss = build(part("FocalLoss", gamma=3), "loss", use_softmax=True)

    assert loss.gamma == 3
    assert loss.use_softmax


@pytest.mark.parametrize(
    ("component", "told"),
    [
        (part("Classification", clases=["a", "b"]), "did you mean `classes`"),
        (part("Classification"), "without `classes`"),
        (part("Classification", classes="ab"), "a list"),
        (part("Classification", classes=[0, 1]), "put quotes around it: '0'"),
        (part("Classification", classes=["a", "b"], gamma="x"), "a number"),
        (part("Classification", classes=["a", "b"], gamma=[1]), "a number"),
        (part("Classification", classes=["a", "b"], balance="weight"), "did you mean `weights`"),
        (part("Classification", classes=["a", "b"], self=1), "takes no argument `self`"),
        (part("Clasification", classes=["a", "b"]), "did you mean `Classification`"),
        (part("FocalLoss"), "another place"),
    ],
)
def test_wrong_argument_is_refused(component: Component, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build(component, "task")

    assert told in str(refused.value)
    assert refused.value.where.startswith("train.yaml:7, task")
    assert len(str(refused.value).splitlines()) == 4


def test_argument_that_medxfer_gives_is_not_the_bundles() -> None:
    with pytest.raises(ConfigError, match="takes no argument `use_softmax`"):
        build(part("FocalLoss", use_softmax=True), "loss", use_softmax=True)


def test_constructor_that_refuses_is_explained() -> None:
    with pytest.raises(ConfigError, match="CrossEntropyLoss"):
        build(part("CrossEntropyLoss", reduction="sum", unexpected=1), "loss")


@pytest.mark.parametrize("target", ["os.system", "medxfer.tasks.classification.Classification", "system", ""])
def test_name_outside_the_table_is_unsafe_when_built(target: str) -> None:
    for action in (resolve, build):
        with pytest.raises(UnsafeError):
            action(part(target), "task")  # type: ignore[operator]


def test_trusted_part_is_imported_and_its_texts_evaluated() -> None:
    made = build(part("fractions.Fraction", numerator="$2 + 1", denominator=4), None, trusted=True)

    assert str(made) == "3/4"
    with pytest.raises(ConfigError, match="MODULE"):
        build(part("fractions.Fractions"), None, trusted=True)


def test_arguments_of_a_bundle_are_checked_before_it_runs() -> None:
    folder = Path(__file__).parents[2] / "bundles" / "pneumonia_cls"

    check_components(load_bundle(folder))
    with pytest.raises(ConfigError, match="did you mean `balance`"):
        check_components(load_bundle(folder, overrides=["task.balnce=none"]))
