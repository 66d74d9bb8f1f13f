"""What is slow or wrong in bf16 on a CPU while training: some convolutions backward, group norm in channels_last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_CONVOLUTIONS = {functional.conv2d: 2, functional.conv3d: 3}
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class ExactBackward(TorchFunctionMode):
    """Inside, convolutions that `needs_fp32` names go forward in bf16 and backward in fp32; all others as ever.

    Two faults of torch 2.13 on CPUs, both in oneDNN's bf16 kernels: the backward of depthwise convolutions (strided or
    5 x 5 ones of pictures, all of volumes) is several times slower than in fp32, and the weight gradient of 3D
    convolutions whose output is no longer than the kernel along an axis holds uninitialised memory; kernels of 7 write
    where they must not, and the process may die (tests/training/test_convolution.py shows it). In fp32 only strided
    kernels of 7 on images of 8 voxels or fewer are wrong; nothing is done about those.

    And one of group norm: its bf16 backward in channels_last takes three to four times as long as on contiguous
    tensors, which are therefore made for it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Take over the convolutions in question."""
        if func in _CONVOLUTIONS and torch.is_grad_enabled():
            given = _arguments(_CONVOLUTIONS[func], *args, **(kwargs or {}))
            if given is not None and needs_fp32(*given[:2], *given[3:]):
                return _Convolution.apply(*given)  # type: ignore[no-untyped-call]  # torch's stub
        if func is functional.group_norm and torch.is_grad_enabled():
            return _group_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _group_norm(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Group norm on contiguous memory, the result in the layout of the input."""
    layout = _CHANNELS_LAST.get(input.ndim)
    if layout is None or input.dtype != torch.bfloat16 or input.is_contiguous():
        return functional.group_norm(input, *args, **kwargs)
    return functional.group_norm(input.contiguous(), *args, **kwargs).contiguous(memory_format=layout)


def needs_fp32(
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> bool:
    """Whether the bf16 backward of this convolution is slow (depthwise) or wrong (3D, thin output) on a CPU."""
    kernel = weight.shape[2:]
    is_depthwise = groups == x.shape[1] > 1
    if weight.ndim == 4:
        return is_depthwise and (max(stride) > 1 or max(kernel) >= 5)
    sizes = zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    is_thin = any(k > 1 and (n + 2 * p - d * (k - 1) - 1) // s + 1 <= k for n, k, s, p, d in sizes)
    return is_thin or (is_depthwise and max(kernel) > 1)


def _arguments(
    dims: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> tuple[Any, ...] | None:
    """One number an axis everywhere; None for padding by name, which encoders do not use."""
    if isinstance(padding, str) or input.ndim != dims + 2:
        return None
    each = [(one,) * dims if isinstance(one, int) else tuple(one) for one in (stride, padding, dilation)]
    return (input, weight, bias, *each, groups)


class _Convolution(torch.autograd.Function):
    """bf16 forward, fp32 backward."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> Tensor:
        """The output in bf16, as autocast would give it."""
        half = x.bfloat16()
        ctx.save_for_backward(half, weight)
        ctx.of = (x.dtype, None if bias is None else list(bias.shape), stride, padding, dilation, groups)
        rest = [0] * len(stride)
        lower = None if bias is None else bias.bfloat16()
        # By this name no mode and no autocast sees it again.
        result: Tensor = torch.ops.aten.convolution(
            half, weight.bfloat16(), lower, stride, padding, dilation, False, rest, groups
        )
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Gradients of input, weight and bias, computed in fp32."""
        half, weight = ctx.saved_tensors
        dtype, bias_shape, stride, padding, dilation, groups = ctx.of
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[2]]
        of_x, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradients[0].float(), half.float(), weight.float(), bias_shape, stride, padding, dilation, False,
            [0] * len(stride), groups, wanted,
        )  # fmt: skip
        return (None if of_x is None else of_x.to(dtype), of_weight, of_bias, None, None, None, None)
