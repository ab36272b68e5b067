"""Decide from a network's graph whether a layer's output can be negative."""

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.nn import functional
from torchvision.ops import SqueezeExcitation, StochasticDepth

# non-negative for any input
_CLAMPING_MODULES = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid)
_CLAMPING_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    functional.relu,
    functional.relu6,
    functional.hardsigmoid,
    torch.relu,
    torch.relu_,
    torch.sigmoid,
)
_CLAMPING_METHODS = ("relu", "relu_", "sigmoid", "sigmoid_")
# non-negative for non-negative inputs
_PASSING_MODULES = (
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Identity,
    nn.Flatten,
    nn.Dropout,
    nn.Dropout2d,
    StochasticDepth,  # identity in inference, as dropout
)
_PASSING_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    functional.max_pool2d,
    functional.avg_pool2d,
    functional.adaptive_max_pool2d,
    functional.adaptive_avg_pool2d,
    functional.dropout,
    torch.flatten,
    torch.transpose,
    torch.reshape,
    torch.permute,
    torch.cat,
    torch.chunk,
    torch.split,
    operator.getitem,
)
_PASSING_METHODS = ("view", "reshape", "transpose", "permute", "contiguous", "flatten", "chunk", "split")
# non-negative if all operands are
_COMBINING_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    operator.add,
    operator.iadd,
    operator.mul,
    operator.imul,
    torch.add,
    torch.mul,
)
_COMBINING_METHODS = ("add", "add_", "mul", "mul_")


def negative_source(network: GraphModule, node: Node) -> str | None:
    """Return the name of an operation or input that can make `node`'s output negative, None if it is non-negative.

    Unknown operations count as possibly negative, as do convolution, batch norm, SiLU, Hardswish and GELU.
    """
    operations = _operations(network, node)
    for operation in operations:
        if _is_one_of(operation, _CLAMPING_MODULES, _CLAMPING_FUNCTIONS, _CLAMPING_METHODS):
            return None
        if not _keeps_sign(operation):
            return _title(node, operation)
    combines = _is_one_of(operations[-1], (), _COMBINING_FUNCTIONS, _COMBINING_METHODS)
    for operand in _operands([*node.args, *node.kwargs.values()] if combines else node.args[:1]):
        if isinstance(operand, Node):
            source = negative_source(network, operand)
            if source is not None:
                return source
        elif operand < 0:
            return _title(node, operations[-1])
    return None


def _operations(network: GraphModule, node: Node) -> Sequence[Any]:
    """Return the modules, function or method name that a node applies, last one first; [None] for inputs."""
    if node.op == "call_module":
        return _last_first(network.get_submodule(str(node.target)))
    return [node.target if node.op in ("call_function", "call_method") else None]


def _last_first(module: nn.Module) -> list[nn.Module]:
    if not isinstance(module, nn.Sequential) or not len(module):
        return [module]
    return [part for child in reversed(module) for part in _last_first(child)]


def _keeps_sign(operation: Any) -> bool:
    """Tell whether an operation maps non-negative inputs to non-negative outputs."""
    if isinstance(operation, SqueezeExcitation):
        return isinstance(operation.scale_activation, _CLAMPING_MODULES)
    functions = (*_PASSING_FUNCTIONS, *_COMBINING_FUNCTIONS)
    return _is_one_of(operation, _PASSING_MODULES, functions, (*_PASSING_METHODS, *_COMBINING_METHODS))


def _is_one_of(
    operation: Any,
    modules: tuple[type[nn.Module], ...],
    functions: tuple[Callable[..., Any], ...],
    methods: tuple[str, ...],
) -> bool:
    if isinstance(operation, nn.Module):
        return isinstance(operation, modules)
    return operation in methods if isinstance(operation, str) else operation in functions


def _operands(arguments: Iterable[Any]) -> Iterator[Node | float]:
    for argument in arguments:
        if isinstance(argument, list | tuple):
            yield from _operands(argument)
        elif isinstance(argument, Node | int | float):
            yield argument


def _title(node: Node, operation: Any) -> str:
    return f"{type(operation).__name__} {node.target}" if isinstance(operation, nn.Module) else node.name
