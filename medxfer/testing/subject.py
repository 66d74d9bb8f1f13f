"""What the checks look at: an encoder, its card, its images, and how a failure is said."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor

from ..cards import EncoderCard
from ..encoders.registry import Listing, build, card_of, list_encoders
from ..encoders.undisturbed import cause_of, undisturbed
from ..errors import MedxferError
from ..plugin import Encoder

_SIZES = {2: (64, 96), 3: (32, 32, 64)}  # not square, so that mixed-up axes show


class CheckFailed(AssertionError):
    """An encoder breaks its promise; the text says what was seen, what was promised and what to do."""


class Subject:
    """An encoder under test, built once per number of channels.

    Args:
        encoder_id: As listed.
        spatial_dims: 2 or 3.
        make: Builds it; default: the registry.
        card: What it claims; default: the registry's.
    """

    def __init__(
        self,
        encoder_id: str,
        spatial_dims: int,
        *,
        make: Callable[[int], Encoder] | None = None,
        card: EncoderCard | None = None,
    ) -> None:
        self.id, self.spatial_dims = encoder_id, spatial_dims
        self._make, self._card = make, card
        self._built: dict[int, Encoder] = {}
        # Check -> its failure or None, and its remark: what failed first explains what fails later.
        self.found: dict[str, tuple[str | None, str]] = {}

    @cached_property
    def card(self) -> EncoderCard:
        """The card."""
        return self._card or card_of(self.id)

    @cached_property
    def listing(self) -> Listing | None:
        """The entry point that it comes from; None where `make` builds it.

        Raises:
            CheckFailed: No such encoder is installed.
        """
        if self._make is not None:
            return None
        name = self.id.partition(":")[0]
        found = next((one for one in list_encoders() if one.id == name), None)
        if found is None:
            raise CheckFailed(f"no encoder `{name}` is installed; `medxfer plugin list` shows what is")
        return found

    @property
    def is_adapted(self) -> bool:
        """Whether an adapter makes it: `timm:resnet50`."""
        return ":" in self.id

    @property
    def size(self) -> tuple[int, ...]:
        """Side lengths of the usual test image."""
        return _SIZES[self.spatial_dims]

    def fresh(self, in_channels: int = 3) -> Encoder:
        """A newly built one, with the same weights each time."""
        torch.manual_seed(0)
        if self._make is not None:
            with undisturbed():
                return self._make(in_channels)
        return build(self.id, spatial_dims=self.spatial_dims, in_channels=in_channels)

    @property
    def is_built(self) -> bool:
        """Whether the one with three channels could be built."""
        return 3 in self._built

    def build_anew(self) -> None:
        """Build the one with three channels, of which `encoder` gives copies."""
        self._built[3] = self.fresh().eval()

    def encoder(self, in_channels: int = 3) -> Encoder:
        """A copy to do with as one likes, in evaluation mode."""
        if in_channels not in self._built:
            self._built[in_channels] = self.fresh(in_channels).eval()
        try:
            return copy.deepcopy(self._built[in_channels])
        except Exception:  # a fault of its own, which check_copies tells; the other checks go on
            return self.fresh(in_channels).eval()

    def images(self, *, batch: int = 2, channels: int = 3, size: Sequence[int] | None = None) -> Tensor:
        """Seeded noise in [0, 1]."""
        generator = torch.Generator().manual_seed(1)
        return torch.rand(batch, channels, *(size or self.size), generator=generator)


def require(holds: bool, text: str) -> None:
    """Fail the check with `text` unless it holds."""
    if not holds:
        raise CheckFailed(text)


def eval_maps(encoder: Encoder, images: Tensor) -> list[Tensor]:
    """Maps without gradients."""
    with torch.no_grad():
        return list(encoder(images))


def relative_difference(one: Tensor, other: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((one - other).abs().max() / one.abs().max().clamp_min(1e-12))


@contextmanager
def explained(what: str, advice: str) -> Iterator[None]:
    """Turn an encoder's own exception into a failed check with torch's words and ours."""
    try:
        yield
    except CheckFailed:
        raise
    except MedxferError as error:
        raise CheckFailed(f"{what}: {error.where}: {error.seen}; {error.todo}") from error
    except (Exception, SystemExit) as error:
        raise CheckFailed(f"{what}: {cause_of(error)[:200]}; {advice}") from error
