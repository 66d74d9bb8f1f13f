"""What timm knows of a network and its pretrained weights, as a medxfer card."""

from __future__ import annotations

import functools
import re
from typing import Any

import torch

from medxfer.plugin import EncoderCard, WeightsCard

from .building import build_with_names, require_known
from .operators import import_timm

_SETS = (
    ("in22k_ft_in1k", "ImageNet-22k, then 1.28 million ImageNet photographs, 1000 classes"),
    ("in21k_ft_in1k", "ImageNet-21k, then 1.28 million ImageNet photographs, 1000 classes"),
    ("in12k_ft_in1k", "12,000 classes of ImageNet-22k, then 1.28 million ImageNet photographs, 1000 classes"),
    ("in22k", "14 million ImageNet-22k photographs"),
    ("in21k", "14 million ImageNet-21k photographs"),
    ("in12k", "12,000 classes of ImageNet-22k"),
    ("in1k", "1.28 million ImageNet photographs, 1000 classes"),
)
# Parts of tags that tell of other sets before or beside ImageNet: their page says more than we can.
_BEYOND = re.compile(
    r"jft|ig\d|yfcc|laion|openai|clip|dino|mae|lvd|seer|datacomp|dfn|webli|merged|swag|beit|eva|m30m|m38m"
)
_SPDX = {
    "apache-2.0": "Apache-2.0",
    "mit": "MIT",
    "bsd-3-clause": "BSD-3-Clause",
    "cc-by-4.0": "CC-BY-4.0",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "cc-by-nc-sa-4.0": "CC-BY-NC-SA-4.0",
}
_TIMM = "Wightman R. PyTorch image models. github.com/huggingface/pytorch-image-models."


@functools.cache
def card(name: str) -> EncoderCard:
    """The card of `timm:<name>`, its weights tags those of timm.

    timm states neither size nor hash of its files: both are None, and kept when a file is first used.

    Raises:
        PluginError: No such network, or one that is no chain of stages.
    """
    require_known(name)
    with torch.device("meta"):
        encoder, names = build_with_names(name, 3)
    timm = import_timm()
    known = timm.models.get_arch_pretrained_cfgs(name)
    default = timm.get_pretrained_cfg(name)
    cards = [_weights(f"{name}.{tag}", cfg) for tag, cfg in known.items()]
    first = default.tag if default else None  # timm's own choice goes first
    weights = sorted((one for one in cards if one is not None), key=lambda one: one.tag != first)
    return EncoderCard(
        id=f"timm:{name}",
        parameters={2: sum(parameter.numel() for parameter in encoder.parameters())},
        channels=encoder.channels,
        strides=tuple(rows for rows, _ in encoder.strides),
        modalities=("photograph", "any 2D"),
        licence="Apache-2.0",  # of timm's code; each weights file has its own
        citation=_TIMM,
        weights=tuple(weights),
        names=names,
    )


def _weights(name: str, cfg: Any) -> WeightsCard | None:
    """The card of one pretrained configuration; None where there is no file."""
    source = _source(name, cfg)
    if source is None:
        return None
    licence = cfg.license or ""
    tag = cfg.tag or ""
    plain = () if _BEYOND.search(tag) else _SETS
    told = next((text for part, text in plain if part in tag), f"see {_page(source)}")
    channels, rows, columns = cfg.input_size
    about = f"{cfg.origin_url or ''} {cfg.paper_ids or ''}".strip()
    return WeightsCard(
        tag=tag or "default",
        source=source,
        licence=_SPDX.get(licence, licence) or f"see {_page(source)}",
        citation=f"{about}, by way of timm: {_TIMM}" if about else _TIMM,
        trained_on=f"{told}; {rows} x {columns} pixels",
        in_channels=channels,
        mean=tuple(cfg.mean),
        std=tuple(cfg.std),
    )


def _source(name: str, cfg: Any) -> str | None:
    """Where timm itself would look: its hub first, then the original file where that holds tensors."""
    if cfg.hf_hub_id:
        repository = name if cfg.hf_hub_id == "timm/" else cfg.hf_hub_id
        repository = repository if "/" in repository else f"timm/{repository}"
        return f"hf:{repository}/{cfg.hf_hub_filename or 'model.safetensors'}"
    url = str(cfg.url or "")
    return url if url.startswith("https://") and not url.endswith(".npz") else None


def _page(source: str) -> str:
    """Where a person reads about the file."""
    kind, _, rest = source.partition(":")
    return f"https://huggingface.co/{rest.rpartition('/')[0]}" if kind == "hf" else source
