"""A network refuses an encoder whose maps are not those that it claims, at the first image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medxfer.errors import PluginError
from medxfer.networks.heads import ClassificationHead
from medxfer.networks.network import Network
from tests.testing.broken import AddsMapsInTraining, Sound, WrongChannels


class Flattens(Sound):
    def as_map(self, index: int, state: Tensor, size: tuple[int, ...]) -> Tensor:
        return state.flatten(2)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (WrongChannels, "stage 1 gives 16 channels, `channels` says 17"),
        (AddsMapsInTraining, "it gives 4 maps, `channels` has 3 entries"),
        (Flattens, "stage 0 gives 3 axes, not 4"),
    ],
)
def test_maps_that_are_not_as_claimed_are_refused(kind: type[Sound], words: str) -> None:
    encoder = kind()
    network = Network(encoder, ClassificationHead(encoder.channels, 2)).train()

    with pytest.raises(PluginError) as caught:
        network(torch.rand(2, 3, 32, 32))

    assert caught.value.seen == words
    assert kind.__name__ in caught.value.where
