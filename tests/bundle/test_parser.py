"""What a bundle says becomes a typed Bundle; what it says wrongly is refused with place and remedy."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medxfer.bundle import schema
from medxfer.bundle.components import check_components
from medxfer.bundle.parser import load_bundle, resolve_phases, to_plain, to_yaml
from medxfer.bundle.schema import Bundle, Component
from medxfer.bundle.source import read_text, write_text
from medxfer.errors import ConfigError, UnsafeError

BUNDLES = Path(__file__).parents[2] / "bundles"
GOOD = """\
seed: 1
data:
  source: synthetic.chest_xray
  patient: {pattern: '(\\d+)'}
encoder: {id: resnet18, in_channels: 1}
task: {_target_: Classification, classes: [a, b]}
training: {batch: 16}
phases:
  - {name: probe, train: head, lr: 1e-3, epochs: 2}
  - {name: finetune, train: all, lr: 1.0e-4, epochs: 3, batch: 8}
"""


def write(folder: Path, text: str, name: str = "train.yaml") -> Path:
    file = folder / "demo" / "configs" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return folder / "demo"


def refused(folder: Path, **options: Any) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        load_bundle(folder, **options)
    assert error.value.exit_code == 2
    assert len(str(error.value).splitlines()) == 4, str(error.value)
    return error.value


def test_bundle_is_typed(tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path, GOOD))

    assert bundle.name == "demo"
    assert bundle.folder == (tmp_path / "demo").resolve()
    assert bundle.seed == 1
    assert bundle.data.patient.pattern == r"(\d+)"
    assert bundle.encoder.weights == "none"
    assert bundle.task == Component(target="Classification", arguments={"classes": ["a", "b"]})
    assert [phase.lr for phase in bundle.phases] == [1e-3, 1e-4]
    assert bundle.images == schema.ImagesSpec()
    assert not bundle.trusted


def test_list_of_exclusions_lies_in_the_bundle_else_where_one_works_else_with_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, GOOD.replace("data:", "data:\n  exclude: leave.txt", 1))
    monkeypatch.chdir(tmp_path)

    assert load_bundle(folder).data.exclude == "leave.txt"
    (tmp_path / "leave.txt").touch()
    assert load_bundle(folder).data.exclude == str(tmp_path / "leave.txt")
    (folder / "leave.txt").touch()
    assert load_bundle(folder).data.exclude == str(folder / "leave.txt")


def test_phases_take_what_training_says(tmp_path: Path) -> None:
    bundle = resolve_phases(load_bundle(write(tmp_path, GOOD)))

    assert [phase.batch for phase in bundle.phases] == [16, 8]
    assert all(
        getattr(phase, field.name) is not None
        for phase in bundle.phases
        for field in dataclasses.fields(phase)
    )


@pytest.mark.parametrize(
    "folder", sorted(path for path in BUNDLES.iterdir() if path.is_dir()), ids=lambda p: p.name
)
def test_shipped_bundle_loads_and_says_the_same_again(folder: Path, tmp_path: Path) -> None:
    bundle = resolve_phases(load_bundle(folder))

    again = load_bundle(write(tmp_path, to_yaml(bundle)))

    assert dataclasses.replace(again, folder=bundle.folder) == bundle


def test_pneumonia_tells_patients_apart_by_file_name() -> None:
    pattern = load_bundle(BUNDLES / "pneumonia_cls").data.patient.pattern
    assert pattern is not None
    names = {
        "person1_bacteria_2.jpeg": "person1_bacteria",
        "person1_virus_6.jpeg": "person1_virus",
        "IM-0523-0001-0002.jpeg": "IM-0523",
        "NORMAL2-IM-0523-0001.jpeg": "NORMAL2-IM-0523",
    }

    found = {name: match[1] if (match := re.search(pattern, name)) else None for name in names}

    assert found == names


# Overrides


def test_override_replaces_a_value(tmp_path: Path) -> None:
    folder = write(tmp_path, GOOD)

    for separator in (".", "::", "#"):
        key = separator.join(("phases", "1", "epochs"))
        assert load_bundle(folder, overrides=[f"{key}=5"]).phases[1].epochs == 5


def test_later_override_wins(tmp_path: Path) -> None:
    assert load_bundle(write(tmp_path, GOOD), overrides=["seed=5", "seed=6"]).seed == 6


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("phases.0.lr=1e-3", 1e-3),
        ("phases.0.lr=1", 1.0),
        ("phases.0.lr=.5", 0.5),
        ("phases.0.lr=$1e-4 * 2", 2e-4),
        ("phases.0.lr=@phases::1::lr", 1e-4),
        ("phases.0.lr=$@phases#1#lr / 10", 1e-5),
        ("phases.0.lr=$-(1 - 3) % 2 + 7 // 2", 3.0),
    ],
)
def test_override_is_yaml(override: str, value: float, tmp_path: Path) -> None:
    rate = load_bundle(write(tmp_path, GOOD), overrides=[override]).phases[0].lr

    assert rate == pytest.approx(value)
    assert type(rate) is float


def test_override_makes_a_section_that_is_not_written(tmp_path: Path) -> None:
    bundle = load_bundle(
        write(tmp_path, GOOD),
        overrides=["images.size=64", "images.augment=[{_target_: RandomNoise, std: 0.1}]"],
    )

    assert bundle.images.size == 64
    assert bundle.images.augment == (Component(target="RandomNoise", arguments={"std": 0.1}),)


def test_override_reaches_into_a_component(tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path, GOOD), overrides=["task.classes.1=c", "task.balance=none"])

    assert bundle.task.arguments == {"classes": ["a", "c"], "balance": "none"}


def test_text_keeps_its_zeros_and_needs_no_quotes(tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path, GOOD), overrides=["data.column=007", "encoder.id=1e3"])

    assert bundle.data.column == "007"
    assert bundle.encoder.id == "1e3"


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("a", "KEY=VALUE"),
        ("=1", "KEY=VALUE"),
        ("phases..lr=1", "KEY=VALUE"),
        ("a.99.b=1", "unknown key `a`"),
        ("phases.99.lr=1", "0 to 1"),
        ("phases.x.lr=1", "0 to 1"),
        ("phases.-1.lr=1", "0 to 1"),
        ("seed.x=1", "seed is 1"),
        ("phases.1.epoch=5", "`epochs`"),
        ("phases.1.lr=nan", "a number"),
        ("phases.1.lr=.nan", "finite"),
        ("phases.1.lr=inf", "a number"),
        ("phases.1.lr=0", "above 0"),
        ("phases.1.lr=-1e-3", "above 0"),
        ("phases.1.epochs=-1", "from 0"),
        ("phases.1.epochs=1.5", "a whole number"),
        ("phases.1.epochs=true", "a whole number"),
        ("phases.1.epochs=five", "a whole number"),
        ("phases.1.epochs=", "a whole number"),
        ("phases.1.train=heads", "did you mean `head`"),
        ("phases.1.name=probe", "a second phase called probe"),
        ("phases=[]", "at least one phase"),
        ("phases={}", "a list"),
        ("images.size=15", "from 16 to 2048"),
        ("images.size=2049", "from 16 to 2048"),
        ("images.store=int8", "did you mean `uint8`"),
        ("batch=5", "`training.batch`"),
        ("trainig.batch=5", "`training`"),
        ("data.split.test=0.9", "leave nothing to train on"),
        ("data.patient.pattern='('", "regular expression"),
        ("task._target_=Clasification", "did you mean `Classification`"),
        ("task._target_=classification", "did you mean `Classification`"),
        ("task._target_=Resize", "another place"),
        ("task._target_=[1]", "Classification"),
        ("images.transforms=[{_target_: Resise}]", "did you mean `Resize`"),
        ("task=Classification", "a component"),
        ("task._disabled_=maybe", "true or false"),
        ("task._disabled_=true", "no `task`"),
        ("encoder.id=@encoder::nam", "no `nam`"),
        ("encoder.id=@::id", "no ``"),
        ("seed=@seed", "circle"),
        ("seed=$@seed + 1", "circle"),
        ("seed=$1 / 0", "divides by zero"),
        ("seed=$'a' + 1", "text takes +"),
        ("seed=$'a' * 9", "text takes +"),
        ("seed=$@phases + 1", "a list or mapping"),
        ("seed=$1.5 + 1", "a whole number"),
        ("encoder.weights=null", "text"),
        ("folder=/tmp", "unknown key `folder`"),
        ("trusted=true", "unknown key `trusted`"),
        ("seed=[1", "YAML"),
        ("seed=*x", "&x"),
        ("seed={a: 1, a: 2}", "twice"),
        ("encoder.options=[1]", "a mapping"),
    ],
)
def test_wrong_override_is_refused(override: str, told: str, tmp_path: Path) -> None:
    error = refused(write(tmp_path, GOOD), overrides=[override])

    assert told in str(error)
    assert "--set" in error.where or "no `task`" in error.seen


@pytest.mark.parametrize(
    ("overrides", "blamed"),
    [
        (["phases.0.name=finetune"], 0),
        (["phases.1.epochs=0", "phases.0.epochs=0"], 1),
        (["data.split.val=0.9"], 0),
        (["images.size=[32, 32]", "images.dims=3"], 0),
        (["start=runs/other", "encoder.weights=imagenet"], 0),
        (["task.balance=x"], 0),
        (["task.balanc=none"], 0),
        (["task.classes.1=5"], 0),
        (["task._target_=Segmentation"], 0),
    ],
)
def test_what_an_option_broke_is_not_said_of_a_line_of_the_file(
    overrides: list[str], blamed: int, tmp_path: Path
) -> None:
    text = GOOD.replace("classes: [a, b]", "classes: [a, b], balance: none") + "images: {dims: 2, size: 64}\n"
    text = text.replace("  patient", "  split: {test: 0.2}\n  patient")

    with pytest.raises(ConfigError) as error:
        check_components(load_bundle(write(tmp_path, text), overrides=overrides))

    assert error.value.where.startswith(f"--set {overrides[blamed]}"), error.value.where


def test_what_the_file_says_wrongly_is_said_of_its_line(tmp_path: Path) -> None:
    folder = write(tmp_path, GOOD.replace("classes: [a, b]", "classes: [a, b],\n  balance: x"))

    with pytest.raises(ConfigError) as error:
        check_components(load_bundle(folder, overrides=["task.classes=[c, d]"]))

    assert error.value.where == f"{folder}/configs/train.yaml:7, balance"


# Where things are written


def test_misspelt_key_is_told_with_line_and_nearest_name(tmp_path: Path) -> None:
    error = refused(write(tmp_path, GOOD.replace("epochs: 3", "epoch: 3")))

    assert error.where.endswith("demo/configs/train.yaml:10, phases.1.epoch")
    assert error.seen == "unknown key `epoch`"
    assert "epochs" in error.accepted
    assert error.todo == "did you mean `epochs`?"


def test_repeated_key_is_told_with_both_lines(tmp_path: Path) -> None:
    error = refused(write(tmp_path, GOOD + "seed: 2\n"))

    assert error.seen == "key `seed` twice, in lines 1 and 11"


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("a: 1\n\tb: 2\n", 2, "tab"),
        ("a: @b\n", 1, "quotes"),
        ("a: [1\nb: 2\n", 2, "column"),
        ("a: 1\n---\nb: 1\n", 2, "one document"),
        ("a: \x07\n", 1, "printable"),
        ("a: 1\nb: !!binary aGk=\n", 2, "!!binary"),
        ("? [1]\n: 2\n", 1, "words as keys"),
    ],
)
def test_syntax_is_told_with_its_line(text: str, line: int, told: str, tmp_path: Path) -> None:
    error = refused(write(tmp_path, text))

    assert f"train.yaml:{line}" in error.where
    assert told in str(error)


def test_other_encoding_is_told_with_line_and_column(tmp_path: Path) -> None:
    folder = write(tmp_path, GOOD)
    (folder / "configs" / "train.yaml").write_bytes(b"seed: 1\nname: Gr\xf6sse\n")

    error = refused(folder)

    assert error.where.endswith("train.yaml:2")
    assert "0xf6 at column 9" in error.seen


def test_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    folder = write(tmp_path, "\ufeff" + GOOD)

    assert load_bundle(folder).seed == 1


def test_json_is_read_and_its_errors_are_told(tmp_path: Path) -> None:
    text = (
        '{\n\t"data": {"source": "synthetic.chest_xray"},\n"encoder": {"id": "r"},\n'
        '"task": {"_target_": "Classification"},\n'
        '"phases": [{"name": "a", "train": "all", "lr": 1e-3, "epochs": 1}]\n}'
    )
    folder = write(tmp_path, text, "train.json")
    assert load_bundle(folder).phases[0].lr == 1e-3

    write(tmp_path, text.replace("]\n}", "],\n}"), "train.json")

    assert "train.json:" in refused(folder).where


def test_missing_keys_are_named(tmp_path: Path) -> None:
    error = refused(write(tmp_path, "seed: 1\n"))

    assert error.seen == "no `data` and no `encoder` and no `task` and no `phases`"


def test_absent_bundle_is_told_with_the_nearest(tmp_path: Path) -> None:
    folder = write(tmp_path, GOOD)

    assert str(folder) in refused(folder.with_name("dmo")).todo
    assert "configs/train.yaml" in refused(tmp_path).seen
    assert "no such file" in refused(tmp_path / "a" / "b").seen


# MONAI's words


def test_disabled_parts_are_left_out(tmp_path: Path) -> None:
    blur = "{_target_: RandomBlur, sigma: 1, _disabled_: true}"
    noise = "{_target_: RandomNoise, std: 1, _disabled_: $False}"
    overrides = [f"images.augment=[{blur}, {noise}]", "phases.0._disabled_=true", "phases.1.lr=-1"]

    bundle = load_bundle(write(tmp_path, GOOD), overrides=overrides[:2])

    assert bundle.images.augment == (Component(target="RandomNoise", arguments={"std": 1}),)
    assert [phase.name for phase in bundle.phases] == ["finetune"]
    assert refused(write(tmp_path, GOOD), overrides=overrides).where == "--set phases.1.lr=-1, phases.0.lr"


def test_reference_takes_a_whole_section(tmp_path: Path) -> None:
    text = GOOD.replace(
        "- {name: finetune",
        '- {name: second, train: "@phases::0::train", lr: 1, epochs: 1}\n  - {name: finetune',
    )

    bundle = load_bundle(write(tmp_path, text), overrides=["encoder.options={a: '@data::patient'}"])

    assert bundle.phases[1].train == "head"
    assert bundle.encoder.options == {"a": {"pattern": r"(\d+)"}}


def test_description_and_default_mode_are_allowed(tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path, GOOD), overrides=["task._desc_=words", "task._mode_=default"])

    assert bundle.task.arguments == {"classes": ["a", "b"]}


def test_plain_words_mean_what_yaml_1_2_says() -> None:
    text = "[no, on, 010, 1e-3, 1:30, 2020-01-01, ~, 0x10, .5, '5', true]"

    assert read_text(text, "x").value == [
        "no",
        "on",
        10,
        1e-3,
        "1:30",
        "2020-01-01",
        None,
        16,
        0.5,
        "5",
        True,
    ]


# Paths


def test_source_is_looked_for_here_then_in_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(tmp_path, GOOD.replace("synthetic.chest_xray", "images"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    absent = load_bundle(folder).data.source
    (folder / "images").mkdir()
    inside = load_bundle(folder).data.source
    (tmp_path / "here" / "images").mkdir()
    here = load_bundle(folder).data.source

    assert absent == here == str(tmp_path / "here" / "images")
    assert inside == str(folder / "images")


def test_options_replace_data_and_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    bundle = load_bundle(write(tmp_path, GOOD), data="$my data", weights="w/x.safetensors")

    assert bundle.data.source == str(tmp_path / "$my data")
    assert bundle.encoder.weights == str(tmp_path / "w" / "x.safetensors")


@pytest.mark.parametrize(
    "weights", ["imagenet", "none", "hf:owner/name/file.safetensors", "https://example.org/x.pt"]
)
def test_weights_that_are_no_file_stay(weights: str, tmp_path: Path) -> None:
    assert load_bundle(write(tmp_path, GOOD), weights=weights).encoder.weights == weights


def test_bundle_root_is_known_to_expressions(tmp_path: Path) -> None:
    folder = write(tmp_path, GOOD)

    for text in ("$bundle_root / 'x'", "$@bundle_root + '/x'"):
        assert load_bundle(folder, overrides=[f"data.source={text}"]).data.source == str(folder / "x")


def test_run_configuration_is_read_by_itself(tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path, GOOD))
    file = tmp_path / "runs" / "one" / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(to_yaml(bundle), encoding="utf-8")

    again = load_bundle(file)

    assert again.name == "demo"
    assert dataclasses.replace(again, folder=bundle.folder) == bundle


# Laws

WORDS = st.one_of(
    st.text(max_size=20),
    st.from_regex(r"[-+.0-9exo_:~]{1,8}", fullmatch=True),
    st.sampled_from(
        ["null", "true", "no", "1e3", "-", "?", "a: b", "a #b", "'", '"', "\n", "\x85", "\u2028", "=", "<<"]
    ),
).filter(lambda text: text[:1] not in ("$", "@", "%"))  # MONAI's syntax, not text
NUMBERS = st.one_of(
    st.booleans(),
    st.integers(-(10**18), 10**18),
    st.floats(allow_nan=False, allow_infinity=False),
)
KEYS = st.text(string.ascii_letters + string.digits + "-_. :#é", min_size=1, max_size=8).filter(
    lambda text: text not in ("_target_", "_mode_", "_requires_", "_disabled_", "_desc_")
)
FREE = st.recursive(
    st.one_of(st.none(), NUMBERS, WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,10}", fullmatch=True)
SHARES = st.floats(0, 1, exclude_max=True)
SHARED: dict[str, st.SearchStrategy[Any]] = {
    "batch": st.integers(1, 65_536),
    "clip_norm": st.floats(0, 1e9),
    "patience": st.integers(0, 1000),
    "weight_decay": st.floats(0, 1),
    "warmup": st.floats(0, 1),
    "schedule": st.sampled_from(["cosine", "constant"]),
    "dropout": SHARES,
    "label_smoothing": SHARES,
}


def parts(*targets: str) -> st.SearchStrategy[Component]:
    arguments = st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), FREE, max_size=3)
    return st.builds(Component, target=st.sampled_from(targets), arguments=arguments)


PHASES = st.lists(
    st.builds(
        schema.PhaseSpec,
        name=NAMES,
        train=st.sampled_from(["head", "last_k", "norm", "bias", "all"]),
        lr=st.floats(1e-12, 1e3),
        epochs=st.integers(0, 1000),
        k=st.integers(1, 9),
        layer_decay=st.floats(0.01, 1),
        views=st.integers(1, 9),
        **{key: st.none() | values for key, values in SHARED.items()},
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda phase: phase.name,
).map(tuple)
BUNDLE = st.builds(
    Bundle,
    name=NAMES,
    folder=st.just(Path("/nowhere")),
    seed=st.integers(0, 2**32 - 1),
    data=st.builds(
        schema.DataSpec,
        source=st.sampled_from(["synthetic.chest_xray", "/data/x: y", "/data/#1"]),
        layout=st.sampled_from(["auto", "class_folders", "csv", "dicom_csv"]),
        labels=st.none() | st.sampled_from(["labels.csv", "a/b.csv", "1"]),
        column=st.none() | WORDS,
        patient=st.builds(
            schema.PatientSpec, column=st.none() | WORDS, pattern=st.none() | st.just(r"(\d+)")
        ),
        split=st.builds(schema.SplitSpec, test=st.floats(0.01, 0.5), val=st.floats(0.01, 0.4)),
        accept_leak=st.none() | WORDS,
    ),
    images=st.builds(
        schema.ImagesSpec,
        size=st.integers(16, 2048),
        store=st.sampled_from(["uint8", "float16"]),
        transforms=st.none() | st.lists(parts("Resize", "Channels"), max_size=2).map(tuple),
        augment=st.none() | st.lists(parts("RandomNoise", "RandomBlur"), max_size=2).map(tuple),
    ),
    encoder=st.builds(
        schema.EncoderSpec,
        id=WORDS,
        weights=NAMES.filter(lambda text: not text.endswith((".pt", ".pth", ".bin", ".ckpt"))),
        in_channels=st.integers(1, 1024),
        options=st.dictionaries(KEYS, FREE, max_size=3),
        min_coverage=st.floats(0, 1),
    ),
    task=parts("Classification"),
    training=st.builds(schema.TrainingSpec, precision=st.sampled_from(["auto", "bf16"]), **SHARED),
    phases=PHASES.filter(lambda phases: any(phase.epochs for phase in phases)),
)
SLOW_MACHINE = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@SLOW_MACHINE
@given(BUNDLE)
def test_written_and_read_again_is_the_same(tmp_path: Path, bundle: Bundle) -> None:
    for one in (bundle, resolve_phases(bundle)):
        again = load_bundle(write(tmp_path, to_yaml(one)))

        assert dataclasses.replace(again, folder=one.folder) == one
        assert to_plain(again) == to_plain(one)


@SLOW_MACHINE
@given(FREE)
def test_yaml_reads_what_it_wrote(value: Any) -> None:
    assert read_text(write_text({"value": value}), "x").value == {"value": value}
    assert read_text(write_text(value, one_line=True), "x").value == value


@SLOW_MACHINE
@given(BUNDLE, st.sampled_from(sorted(SHARED)), st.data())
def test_override_changes_its_key_and_nothing_else(
    tmp_path: Path, bundle: Bundle, key: str, data: st.DataObject
) -> None:
    folder = write(tmp_path, to_yaml(bundle))
    number = data.draw(st.integers(0, len(bundle.phases) - 1))
    value = data.draw(SHARED[key])
    separator = data.draw(st.sampled_from([".", "::", "#"]))
    path = separator.join(("phases", str(number), key))

    after = load_bundle(folder, overrides=[f"{path}={write_text(value, one_line=True)}"])

    expected = to_plain(bundle)
    expected["phases"][number][key] = value
    assert to_plain(after) == expected


@SLOW_MACHINE
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(tmp_path: Path, text: str) -> None:
    folder = write(tmp_path, GOOD)
    for override in (f"seed={text}", f"task.classes={text}", text):
        with contextlib.suppress(ConfigError, UnsafeError):
            load_bundle(folder, overrides=[override])


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_survive_exactly(number: float) -> None:
    again = read_text(write_text({"x": number}), "x").value["x"]

    assert math.copysign(1, again) == math.copysign(1, number)
    assert again == number
