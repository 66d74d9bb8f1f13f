"""Files that leave a choice: which options, which dictionary, which constants; and parts that stay random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import medxfer
from medxfer.encoders.receipt import Receipt
from medxfer.encoders.registry import build, list_encoders
from medxfer.errors import ConfigError, MedxferError, WeightsError

NORM = ("running_mean", "running_var", "num_batches_tracked")
STEM = ("conv1.", "bn1.")


def torchvision_resnet(depth: int = 18, channels: int = 3, dims: int = 2, shortcut: str = "B") -> nn.Module:
    """MONAI's ResNet as torchvision and MedicalNet build theirs, random."""
    from monai.networks.nets import resnet as nets

    return getattr(nets, f"resnet{depth}")(  # type: ignore[no-any-return]
        spatial_dims=dims,
        n_input_channels=channels,
        conv1_t_stride=2,
        shortcut_type=shortcut,
        bias_downsample=False,
        num_classes=5,
    )


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """torchvision's names of a ResNet-18."""
    return torchvision_resnet().state_dict()


def own(seed: int = 3) -> dict[str, Tensor]:
    """A small encoder's state, as somebody trained it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = build("cnn", spatial_dims=2, in_channels=1).state_dict()
    return {name: value.clone() for name, value in state.items() if not name.startswith("normalise")}


def load(content: object, folder: Path, encoder_id: str = "cnn", channels: int = 1, **others: Any) -> Receipt:
    torch.save(content, folder / "weights.pth")
    return medxfer.create_encoder(
        encoder_id, weights=str(folder / "weights.pth"), in_channels=channels, **others
    )[1]


def optimiser_of(network: nn.Module) -> dict[str, Any]:
    """State of an optimiser that made a step: two moments of each parameter."""
    optimiser = torch.optim.Adam(network.parameters())
    network(torch.rand(1, 1, 32, 32))[-1].sum().backward()
    optimiser.step()
    return optimiser.state_dict()


@pytest.mark.parametrize("depth", [18, 34])
@pytest.mark.parametrize("absent", [NORM[2:], NORM])
def test_file_without_counters_is_loaded_into_the_network_it_came_from(
    depth: int, absent: tuple[str, ...], tmp_path: Path
) -> None:
    module = torchvision_resnet(depth).eval()
    state = {name: value for name, value in module.state_dict().items() if not name.endswith(absent)}

    receipt = load(state, tmp_path, f"resnet{depth}", 3)

    assert receipt.options == {}
    assert [row.name for row in receipt.of("unused")] == ["fc.weight", "fc.bias"]
    assert receipt.coverage == 1


def test_file_without_counters_is_loaded_into_shortcut_a_where_it_has_that(tmp_path: Path) -> None:
    state = torchvision_resnet(shortcut="A", channels=1, dims=3).state_dict()
    state = {name: value for name, value in state.items() if not name.endswith(NORM[2:])}

    receipt = load(state, tmp_path, "resnet18", 1, spatial_dims=3)

    assert receipt.options == {"shortcut": "A"}
    assert receipt.coverage == 1


def test_absent_stem_is_refused_though_it_is_a_small_share(
    published: dict[str, Tensor], tmp_path: Path
) -> None:
    state = {name: value for name, value in published.items() if not name.startswith(STEM)}

    with pytest.raises(
        WeightsError, match=r"(?s)stage 0: 0\.0% of .*99\.9% of the whole.*95% of every stage"
    ):
        load(state, tmp_path, "resnet18", 3)


def test_renamed_stage_is_refused_with_what_looks_like_it(
    published: dict[str, Tensor], tmp_path: Path
) -> None:
    state = {name.replace("layer1", "LAYER1"): value for name, value in published.items()}

    with pytest.raises(
        WeightsError,
        match=r"(?s)stage 1: 0\.0%.*layer1\.0\.conv1\.weight.*not used.*same shape.*LAYER1\.0\.conv1",
    ):
        load(state, tmp_path, "resnet18", 3)


def test_stem_of_another_shape_is_refused_with_both_shapes(
    published: dict[str, Tensor], tmp_path: Path
) -> None:
    state = {**published, "conv1.weight": published["conv1.weight"][:, :, :3, :3].clone()}

    with pytest.raises(WeightsError, match=r"(?s)stage 0: 1\.3%.*\(64, 3, 3, 3\).*\(64, 3, 7, 7\)"):
        load(state, tmp_path, "resnet18", 3)


def test_part_may_stay_random_where_the_minimum_allows_it(
    published: dict[str, Tensor], tmp_path: Path
) -> None:
    state = {name: value for name, value in published.items() if not name.startswith(STEM)}

    receipt = load(state, tmp_path, "resnet18", 3, min_coverage=0.0)

    assert 0.99 < receipt.coverage < 1


def test_constants_of_weights_for_volumes_are_not_taken_for_a_picture_file(tmp_path: Path) -> None:
    receipt = load(torchvision_resnet(channels=1).state_dict(), tmp_path, "resnet18", 1)

    assert not any("medicalnet" in note for note in receipt.notes)
    assert any("assumed" in note and "defaults" in note for note in receipt.notes)


def test_constants_of_a_volume_file_are_assumed_and_said_to_be(tmp_path: Path) -> None:
    state = torchvision_resnet(10, channels=1, dims=3).state_dict()

    receipt = load(state, tmp_path, "resnet10", 1, spatial_dims=3)

    assert any(
        note.startswith("assumed: mean and std are those of resnet10.medicalnet") for note in receipt.notes
    )


def test_constants_that_medxfer_chose_are_said_to_be_its_choice() -> None:
    cards = {listing.id: listing.card for listing in list_encoders() if listing.card}

    chosen = [
        weights.trained_on
        for card in cards.values()
        for weights in card.weights
        if weights.tag in ("medicalnet", "brats")
    ]

    assert len(chosen) == 7
    assert all("medxfer's choice" in words for words in chosen)


@pytest.mark.parametrize(
    "name", ["params", "checkpoint", "zzz"], ids=["before the optimiser", "beside it", "after it"]
)
def test_weights_of_any_name_are_found_beside_an_optimiser(name: str, tmp_path: Path) -> None:
    encoder = build("cnn", spatial_dims=2, in_channels=1)
    moments = optimiser_of(encoder)

    receipt = load({"optimizer": moments, "model": moments, name: own()}, tmp_path)

    assert receipt.coverage == 1
    assert f"opened the wrapper `{name}`" in receipt.notes


def test_dictionary_that_fits_is_taken_before_the_larger_and_the_better_named(tmp_path: Path) -> None:
    others = {"head.weight": torch.ones(3000, 3000)}

    receipt = load({"model": others, "backbone": own()}, tmp_path)

    assert receipt.coverage == 1
    assert "opened the wrapper `backbone`" in receipt.notes


def test_nested_dictionary_is_found(tmp_path: Path) -> None:
    receipt = load({"state": {"epoch": 1, "net": own()}}, tmp_path)

    assert receipt.coverage == 1
    assert "opened the wrapper `state.net`" in receipt.notes


def test_dictionaries_that_fit_alike_are_named(tmp_path: Path) -> None:
    torch.save({"student": own(1), "teacher": own(2)}, tmp_path / "weights.pth")

    encoder, receipt = medxfer.create_encoder("cnn", weights=str(tmp_path / "weights.pth"))

    assert "opened the wrapper `teacher`" in receipt.notes
    assert any("`student`" in note and "as well" in note for note in receipt.notes)
    name = next(name for name, _ in encoder.named_parameters())
    assert torch.equal(encoder.state_dict()[name], own(2)[name])


def test_prefixes_that_fit_alike_are_named(tmp_path: Path) -> None:
    state = {
        **{f"student.{k}": v for k, v in own(1).items()},
        **{f"teacher.{k}": v for k, v in own(2).items()},
    }

    receipt = load(state, tmp_path)

    assert receipt.coverage == 1
    assert any("`student.`" in note and "taken off" in note for note in receipt.notes)
    assert any("`teacher.`" in note and "as well" in note for note in receipt.notes)


def test_optimisers_state_alone_is_no_weights_file(tmp_path: Path) -> None:
    encoder = build("cnn", spatial_dims=2, in_channels=1)

    with pytest.raises(WeightsError, match="no tensors"):
        load({"optimizer": optimiser_of(encoder), "epoch": 3}, tmp_path)


def test_table_has_a_line_for_each_kind_of_conversion(published: dict[str, Tensor], tmp_path: Path) -> None:
    state = {name: value.half() if "layer1" in name else value for name, value in published.items()}

    table = load(state, tmp_path, "resnet18", 5, spatial_dims=3).table()

    assert "3 input channels spread over 5: stages.0.conv1.weight\n" in table
    assert "2D kernel put into the middle of 7: stages.0.conv1.weight\n" in table
    assert "2D kernel put into the middle of 3: 16 tensors\n" in table
    assert "float16 to float32: 20 tensors\n" in table


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_lite1"])
def test_timms_names_of_an_efficientnet_lite_are_read(name: str, tmp_path: Path) -> None:
    building = pytest.importorskip("medxfer_timm.operators", reason="medxfer-timm is not installed")
    module = building.import_timm().create_model(name).eval()
    torch.save(module.state_dict(), tmp_path / "a.pth")

    encoder, receipt = medxfer.create_encoder(
        name.removeprefix("tf_"), weights=str(tmp_path / "a.pth"), in_channels=3
    )

    image = torch.rand(1, 3, 65, 96)
    with torch.no_grad():
        ours = encoder.eval()(image)[-1]
        theirs = module.blocks(module.bn1(module.conv_stem(encoder.normalise(image))))
    assert receipt.coverage == 1
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=float(theirs.abs().max()) * 1e-5)
    assert any("assumed" in note for note in receipt.notes)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("blocks.1.0.conv_dw.weight", "timm:efficientnet_b0"),
        ("features.2.0.block.1.0.weight", "torchvision's EfficientNet"),
    ],
)
def test_efficientnets_of_other_libraries_which_pad_otherwise_are_named(
    key: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=words):
        load({key: torch.ones(96, 1, 3, 3)}, tmp_path, "efficientnet_b0", 3)


def test_another_size_of_the_same_network_is_said_to_be_that(tmp_path: Path) -> None:
    small = build("swin", spatial_dims=3, in_channels=1, options={"feature_size": 12}).state_dict()

    with pytest.raises(WeightsError, match=r"(?s)names fit.*feature_size: 48"):
        load(small, tmp_path, "swin", spatial_dims=3)


def test_weights_for_volumes_are_refused_for_pictures_before_they_are_fetched() -> None:
    with pytest.raises(WeightsError, match=r"(?s)resnet18\.medicalnet.*in 2D.*3D.*imagenet"):
        medxfer.create_encoder("resnet18", weights="medicalnet")


def test_options_reach_the_encoder_from_python() -> None:
    encoder, receipt = medxfer.create_encoder("segresnet", options={"init_filters": 8})

    assert encoder.channels[0] == 8
    assert receipt.options == {"init_filters": 8}


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"in_channels": 0}, ConfigError, "encoder.in_channels"),
        ({"in_channels": -1}, ConfigError, "encoder.in_channels"),
        ({"weights": ""}, WeightsError, "encoder.weights"),
        ({"weights": " "}, WeightsError, "encoder.weights"),
        ({"min_coverage": 1.5}, ConfigError, "encoder.min_coverage"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(
    arguments: dict[str, Any], kind: type[MedxferError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        medxfer.create_encoder("cnn", **arguments)
