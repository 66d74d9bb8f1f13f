"""Every tensor accounted for; nothing loaded in silence, nothing lost in silence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from medxfer.bundle.schema import EncoderSpec
from medxfer.encoders.loading import create_encoder
from medxfer.encoders.registry import build
from medxfer.errors import WeightsError
from medxfer.plugin import Encoder

FIRST = "stages.0.conv1.weight"


def trained(in_channels: int = 1, seed: int = 7) -> dict[str, Tensor]:
    """A resnet18 state with nothing at its default, so that what was not loaded shows."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = build("resnet18", spatial_dims=2, in_channels=in_channels)
        state = {k: v.clone() for k, v in encoder.state_dict().items() if not k.startswith("normalise")}
        for value in state.values():
            if value.ndim == 1:
                value.copy_(torch.rand_like(value) + 0.5)
            elif value.ndim == 0:
                value.fill_(11)
    return state


def spec(path: Path | str, **others: object) -> EncoderSpec:
    return EncoderSpec(id="resnet18", weights=str(path), **{"in_channels": 1, **others})  # type: ignore[arg-type]


def stages_of(encoder: Encoder) -> dict[str, Tensor]:
    return {k: v for k, v in encoder.state_dict().items() if not k.startswith("normalise")}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_no_weights_are_said_to_be_random() -> None:
    _, receipt = create_encoder(EncoderSpec(id="resnet18"))

    assert receipt.coverage == 0
    assert {row.state for row in receipt.rows} == {"re-initialised"}
    assert "random weights" in receipt.table()


@pytest.mark.parametrize("kind", ["safetensors", "torch", "legacy"])
def test_every_tensor_arrives_buffers_included(tmp_path: Path, kind: str) -> None:
    state, path = trained(), tmp_path / "weights.bin"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "torch")

    encoder, receipt = create_encoder(spec(path))

    assert receipt.coverage == 1
    assert all(torch.equal(value, state[name]) for name, value in stages_of(encoder).items())
    assert {row.name for row in receipt.of("loaded")} == set(state)
    assert not receipt.of("unused")
    assert any("defaults" in note for note in receipt.notes)


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "encoder.", "module.model.encoder.", "net.backbone."]
)
def test_prefix_is_found_out_and_named(tmp_path: Path, prefix: str) -> None:
    state = trained()
    path = saved(tmp_path / "a.pth", {f"{prefix}{name}": value for name, value in state.items()})

    encoder, receipt = create_encoder(spec(path))

    assert receipt.coverage == 1
    assert torch.equal(encoder.state_dict()[FIRST], state[FIRST])
    assert any(f"`{prefix}`" in note for note in receipt.notes)


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "anything"])
def test_wrapper_is_opened_and_named(tmp_path: Path, wrapper: str) -> None:
    state = trained()
    path = saved(tmp_path / "a.pth", {"epoch": 3, wrapper: state, "note": "text"})

    _, receipt = create_encoder(spec(path))

    assert receipt.coverage == 1
    assert any(f"`{wrapper}`" in note for note in receipt.notes)


def test_optimiser_beside_the_weights_is_not_taken_for_them(tmp_path: Path) -> None:
    state = trained()
    moments = {"state": {0: {"exp_avg": torch.ones(3)}}}
    path = saved(tmp_path / "a.pth", {"optimizer": moments, "state_dict": state})

    _, receipt = create_encoder(spec(path))

    assert receipt.coverage == 1


def test_head_is_unused_and_not_counted(tmp_path: Path) -> None:
    state = {f"encoder.{name}": value for name, value in trained().items()}
    path = saved(tmp_path / "a.pth", {**state, "head.linear.weight": torch.ones(2, 1024)})

    _, receipt = create_encoder(spec(path))

    assert receipt.coverage == 1
    assert [row.name for row in receipt.of("unused")] == ["head.linear.weight"]
    assert "head.linear.weight" in receipt.table()


def test_own_constants_come_back_with_the_weights(tmp_path: Path) -> None:
    encoder, _ = create_encoder(EncoderSpec(id="efficientnet_lite0", weights="imagenet", in_channels=1))
    path = saved(
        tmp_path / "own.pth", {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    )

    again, receipt = create_encoder(EncoderSpec(id="efficientnet_lite0", weights=str(path), in_channels=1))

    assert receipt.coverage == 1
    assert {name: value.tolist() for name, value in again.normalise.named_buffers()} == {
        "1.mean": [0.5] * 3,
        "1.std": [0.5] * 3,
    }
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        assert torch.equal(encoder.eval()(image)[-1], again.eval()(image)[-1])


def test_published_file_by_path_is_known_by_its_hash() -> None:
    _, by_tag = create_encoder(EncoderSpec(id="efficientnet_lite0", weights="imagenet", in_channels=1))

    _, by_path = create_encoder(EncoderSpec(id="efficientnet_lite0", weights=str(by_tag.file), in_channels=1))

    assert by_path.coverage == 1
    assert any("efficientnet_lite0.imagenet, by its hash" in note for note in by_path.notes)


def test_finetuned_copy_with_published_names_is_read_by_the_cards_key_map(tmp_path: Path) -> None:
    _, receipt = create_encoder(EncoderSpec(id="efficientnet_lite0", weights="imagenet", in_channels=1))
    state = torch.load(str(receipt.file), weights_only=True)
    path = saved(
        tmp_path / "mine.pth", {f"module.{k}": v.clone() for k, v in state.items() if "_fc" not in k}
    )

    encoder, receipt = create_encoder(EncoderSpec(id="efficientnet_lite0", weights=str(path), in_channels=1))

    assert receipt.coverage == 1
    assert encoder.in_channels == 1
    assert any("mean and std are those of efficientnet_lite0.imagenet" in note for note in receipt.notes)
    assert any("`module.`" in note for note in receipt.notes)


def test_too_few_tensors_stop_and_name_what_is_missing(tmp_path: Path) -> None:
    state = {name: value for name, value in trained().items() if "layer4" not in name}

    with pytest.raises(WeightsError, match=r"(?s)of the parameters found.*stages\.4\.layer4.*at least 95%"):
        create_encoder(spec(saved(tmp_path / "a.pth", state)))


def test_lower_minimum_lets_them_through_and_lists_them(tmp_path: Path) -> None:
    state = {name: value for name, value in trained().items() if "layer4" not in name}

    encoder, receipt = create_encoder(spec(saved(tmp_path / "a.pth", state), min_coverage=0.0))

    lost = {row.name for row in receipt.of("re-initialised") if row.kind == "parameter"}
    assert lost == {name for name, _ in encoder.named_parameters() if "layer4" in name}
    assert 0.1 < receipt.coverage < 0.95


def test_other_architecture_is_refused_with_both_naming_schemes(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", nn.Linear(3, 4).state_dict())

    with pytest.raises(
        WeightsError, match=r"(?s)0.0%.*weight, bias.*stages\.0\.conv1\.weight.*another architecture"
    ):
        create_encoder(spec(path))


def test_shape_that_no_rule_converts_is_not_loaded(tmp_path: Path) -> None:
    state = trained()
    state["stages.4.layer4.0.conv1.weight"] = torch.ones(512, 128, 3, 3)

    _, receipt = create_encoder(spec(saved(tmp_path / "a.pth", state), min_coverage=0.5))

    row = next(
        row for row in receipt.rows if row.name == "stages.4.layer4.0.conv1.weight" and row.kind != "file"
    )
    assert row.state == "re-initialised"
    assert "(512, 128, 3, 3)" in row.how
    assert any("stay random" in note and "(512, 128, 3, 3)" in note for note in receipt.notes)


def test_missing_running_statistics_are_said(tmp_path: Path) -> None:
    state = {name: value for name, value in trained().items() if "running" not in name}

    _, receipt = create_encoder(spec(saved(tmp_path / "a.pth", state)))

    assert receipt.coverage == 1
    assert any("running statistics" in note for note in receipt.notes)


def test_half_precision_is_widened_and_said(tmp_path: Path) -> None:
    state = {name: value.half() if value.ndim > 1 else value for name, value in trained().items()}

    encoder, receipt = create_encoder(spec(saved(tmp_path / "a.pth", state)))

    assert encoder.state_dict()[FIRST].dtype == torch.float32
    assert torch.equal(encoder.state_dict()[FIRST], state[FIRST].float())
    assert all("float16 to float32" in row.how for row in receipt.of("converted"))
    assert len(receipt.of("converted")) == sum(value.ndim > 1 for value in state.values())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none_are_refused(tmp_path: Path, value: float) -> None:
    state = trained()
    state["stages.3.layer3.0.bn1.running_var"][4] = value

    with pytest.raises(WeightsError, match=r"NaN or infinity in stages\.3\.layer3\.0\.bn1\.running_var"):
        create_encoder(spec(saved(tmp_path / "a.pth", state)))


def test_unknown_tag_names_the_nearest() -> None:
    with pytest.raises(WeightsError, match="did you mean imagenet"):
        create_encoder(EncoderSpec(id="efficientnet_lite0", weights="imagnet"))


def test_absent_file_is_said_to_be_absent() -> None:
    with pytest.raises(WeightsError, match="no such file"):
        create_encoder(spec("somewhere/weights.pth"))


def test_receipt_is_plain_data(tmp_path: Path) -> None:
    _, receipt = create_encoder(spec(saved(tmp_path / "a.pth", trained())))

    content = json.loads(json.dumps(receipt.to_json()))

    assert content["coverage"] == 1.0
    assert content["sha256"] == receipt.sha256
    assert len(content["tensors"]) == len(receipt.rows)
    assert sum(content["counts"].values()) == len(receipt.rows)


def test_colour_weights_take_grey_images(tmp_path: Path) -> None:
    state = trained(in_channels=3)

    encoder, receipt = create_encoder(spec(saved(tmp_path / "a.pth", state)))

    assert receipt.coverage == 1
    assert not receipt.of("converted")
    assert encoder.in_channels == 1
    assert encoder.state_dict()[FIRST].shape[1] == 3
    assert encoder(torch.rand(2, 1, 64, 64))[0].shape[1] == 64


def test_grey_weights_take_colour_images(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", trained(in_channels=1))
    grey, _ = create_encoder(spec(path))
    colour, receipt = create_encoder(spec(path, in_channels=3))
    image = torch.rand(2, 1, 65, 64)

    with torch.no_grad():
        pairs = zip(grey.eval()(image), colour.eval()(image.expand(-1, 3, -1, -1)), strict=True)

        assert [row.name for row in receipt.of("converted")] == [FIRST]
        for one, other in pairs:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_2d_weights_in_3d_give_the_2d_response_in_every_slice(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", trained())
    flat, _ = create_encoder(spec(path))
    deep, receipt = create_encoder(spec(path), spatial_dims=3)
    image = torch.rand(1, 1, 32, 32)

    with torch.no_grad():
        maps = zip(flat.eval()(image), deep.eval()(image[..., None].expand(-1, -1, -1, -1, 40)), strict=True)

        assert receipt.coverage == 1
        assert receipt.of("converted")
        for one, other in maps:
            torch.testing.assert_close(other, one[..., None].expand_as(other), rtol=1e-4, atol=1e-4)


def test_deeper_networks_file_is_refused_though_every_tensor_is_found(tmp_path: Path) -> None:
    state = build("resnet34", spatial_dims=2, in_channels=1).state_dict()

    with pytest.raises(WeightsError, match=r"(?s)finds no place: stages\.1\.layer1\.2.*name the encoder"):
        create_encoder(spec(saved(tmp_path / "a.pth", state)))


def test_volumes_weights_for_pictures_are_refused_by_their_dimensions(tmp_path: Path) -> None:
    state = build("resnet10", spatial_dims=3, in_channels=1).state_dict()
    path = saved(tmp_path / "a.pth", state)

    with pytest.raises(WeightsError, match=r"(?s)resnet10 in 2D.*kernels of 3 dimensions.*for volumes"):
        create_encoder(EncoderSpec(id="resnet10", weights=str(path)))
