"""Several processes under `torchrun`: who is first, what all must agree on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """This process among its peers; alone by default."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def agree(self, value: T) -> T:
        """The first process's value, everywhere."""
        if self.size == 1:
            return value
        box: list[T] = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def spread(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over processes; itself when alone."""
        if self.size == 1:
            return module
        return nn.parallel.DistributedDataParallel(module)

    def mean(self, value: float) -> float:
        """The mean over processes."""
        if self.size == 1:
            return value
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        total = torch.tensor([value], dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return float(total) / self.size


@contextlib.contextmanager
def world_of_environment(device_name: str) -> Iterator[World]:
    """Join the process group that `torchrun` describes in the environment; alone without it.

    Args:
        device_name: As asked for by the user; gloo for `cpu`, nccl for CUDA devices.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    on_cuda = device_name != "cpu" and torch.cuda.is_available()
    dist.init_process_group("nccl" if on_cuda else "gloo")
    try:
        yield World(rank=dist.get_rank(), size=size, local_rank=int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()
