"""Networks of ZNN: their groups of nodes and edges as our layers, their filters as our weights.

ZNN (Zlateski, Lee, Seung, IPDPS 2016) describes a network as a graph, in a text file or in the file it saves:

    edges conv1            nodes nconv1
    type conv              type transfer
    size 1,4,4             function rectify_linear
    input input            size 48
    output nconv1

Edges are layers; nodes are feature maps, with their biases and activation. A graph that is one chain is a list of our
layers: ZNN's max_filter and its sparse filters are the dense form that an `Architecture` stands for.

Key insight: ZNN convolves and we correlate. Along each axis, with a filter w of k voxels that are d apart,

    ZNN    out[v] = Σ_i in[v + d·i] · w[k-1-i]
    ours   out[v] = Σ_i in[v + d·i] · w[i]

so each filter is turned around along z, y and x, and its axes (in, out) change places.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuropil.errors import InputError
from neuropil.networks.activation import TANH_GAIN, TANH_SLOPE
from neuropil.networks.architecture import Activation, Architecture
from neuropil.networks.network import DenseNetwork

Group = Mapping[str, Any]
"""Fields of some nodes or of an edge, as text or arrays; among them `name`, and `group_type`, "node" or "edge"."""
Groups = Mapping[str, Group]

_ACTIVATIONS: dict[str, tuple[Activation, str, tuple[float, ...]]] = {
    # function of ZNN: ours; its arguments by default; those that ours has
    "rectify_linear": ("relu", "", ()),
    "linear": ("linear", "1,0", (1, 0)),
    "tanh": ("tanh", "1,1", (TANH_GAIN, TANH_SLOPE)),
}


@dataclass(frozen=True)
class _Link:
    """One edge of a chain and the node that it leads to."""

    edge: Group
    node: Group


def parse_description(text: str) -> dict[str, dict[str, Any]]:
    """Read the text of a `.znn` file.

    Returns
    -------
    name → field → text, in the order of the file

    Raises
    ------
    InputError : a line that is no field of any group, or two groups of one name

    Examples
    --------
    >>> parse_description("nodes input\\ntype input\\nsize 1")
    {'input': {'group_type': 'node', 'name': 'input', 'type': 'input', 'size': '1'}}
    """
    groups: dict[str, dict[str, Any]] = {}
    group: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        key, value = words[0], words[1] if len(words) > 1 else ""
        begins = key in ("nodes", "edges")
        if not value or not (begins or group):
            raise InputError(
                f"line {number} must be 'nodes NAME', 'edges NAME' or a field of one; got {line.strip()[:60]!r}"
            )
        if begins and value in groups:
            raise InputError(f"names of nodes and edges must differ; line {number} uses '{value}' again")
        if begins:
            group = groups[value] = {"group_type": key[:-1], "name": value}
        else:
            group[key] = value
    return groups


def architecture_of(groups: Groups, name: str) -> Architecture:
    """Return the layers that a graph stands for.

    Parameters
    ----------
    groups : all nodes and edges
    name : of the architecture

    Raises
    ------
    InputError : the graph is not one chain from an image to two maps, or has a layer that we have not

    Examples
    --------
    >>> text = '''
    ... nodes input
    ... type input
    ... size 1
    ... edges conv
    ... type conv
    ... size 1,4,4
    ... input input
    ... output output
    ... nodes output
    ... type transfer
    ... function linear
    ... size 2'''
    >>> architecture_of(parse_description(text), "small").lines
    ('conv 1x4x4 2 linear',)
    """
    chain = _chain(groups)
    xavier = all(link.edge.get("init") == "xavier" for link in chain if _is_conv(link))
    lines = tuple(_line(link) for link in chain)
    architecture = Architecture(name, lines, initialisation="xavier" if xavier else "msra")
    architecture.check_boundary()
    return architecture


def network_of(groups: Groups, saved: Groups, name: str) -> DenseNetwork:
    """Return a network with the weights that ZNN saved.

    Parameters
    ----------
    groups : all nodes and edges
    saved : what holds `filters` (in, out, z, y, x) of convolutions and `biases` (out,) of nodes, under the same names
    name : of the architecture

    Raises
    ------
    InputError : as of `architecture_of`; filters or biases that are missing, of another shape or not finite
    """
    architecture = architecture_of(groups, name)
    weights = {}
    for conv, link in zip(architecture.convs, filter(_is_conv, _chain(groups))):
        out, maps, *size = architecture.weight_shape(conv.name)
        filters = _array(saved, link.edge["name"], "filters", (maps, out, *size))
        biased = link.node["type"] == "transfer"
        biases = _array(saved, link.node["name"], "biases", (out,)) if biased else np.zeros(out, np.float32)
        weights[f"{conv.name}.weight"] = torch.from_numpy(np.flip(filters, (2, 3, 4)).swapaxes(0, 1).copy())
        weights[f"{conv.name}.bias"] = torch.from_numpy(biases)
    network = DenseNetwork(architecture)
    network.load_weights(weights)
    return network.eval()


def _chain(groups: Groups) -> list[_Link]:
    """Follow the edges from the image to the output."""
    nodes = {name: group for name, group in groups.items() if group["group_type"] == "node"}
    edges = [group for group in groups.values() if group["group_type"] == "edge"]
    inputs = [name for name, node in nodes.items() if node.get("type") == "input"]
    if len(inputs) != 1 or _integers(nodes[inputs[0]], "size", 1) != (1,):
        shown = [f"{name} of size {nodes[name].get('size')}" for name in inputs]
        raise InputError(
            f"the network must have one input, the image, of size 1; it has {' and '.join(shown) or 'none'}"
        )
    here, chain = inputs[0], list[_Link]()
    while leaving := [edge for edge in edges if edge.get("input") == here]:
        here = str(_field(leaving[0], "output"))
        arriving = [edge for edge in edges if edge.get("output") == here]
        branch = leaving if len(leaving) > 1 else arriving
        if len(branch) > 1:
            names = ", ".join(edge["name"] for edge in branch)
            raise InputError(f"the network must be one chain of edges; it branches into {names}")
        if here not in nodes or here in inputs:
            raise InputError(f"edge '{leaving[0]['name']}' must lead to nodes that are described; it leads to '{here}'")
        chain.append(_Link(leaving[0], nodes[here]))
    reached = [link.edge["name"] for link in chain]
    if lost := [edge["name"] for edge in edges if edge["name"] not in reached]:
        raise InputError(f"every edge must be reached from '{inputs[0]}'; not reached are {', '.join(lost)}")
    return chain


def _line(link: _Link) -> str:
    """Return the line of an `Architecture` for an edge and its node."""
    edge, node = link.edge, link.node
    kind, word = _field(edge, "type"), re.sub(r"\W", "_", edge["name"])
    if odd := {"sparse", "dense"} & {*edge, *node}:
        raise InputError(f"'{edge['name']}' must have the sparseness of the strides before it; it sets {odd.pop()}")
    if _is_conv(link):
        if _integers(edge, "stride", 3, "1,1,1") != (1, 1, 1):
            raise InputError(f"stride of convolution '{edge['name']}' must be 1,1,1; got {edge['stride']}")
        (maps,), size = _integers(node, "size", 1), _times(_integers(edge, "size", 3))
        return f"{word} {size} {maps} {_activation(node)}".removesuffix(" relu")
    if kind not in ("max_filter", "dropout") or _field(node, "type") != "sum":
        raise InputError(
            f"edge '{edge['name']}' must be a conv, or a max_filter or dropout into nodes of type sum;"
            f" it is a {kind} into nodes of type {node.get('type')}"
        )
    if kind == "dropout":
        return f"dropout {1 - _numbers(edge, 'ratio', 1)[0]:g}"  # ZNN's ratio is of what is kept
    size, stride = _times(_integers(edge, "size", 3)), _times(_integers(edge, "stride", 3, "1,1,1"))
    word = word if word.startswith("pool") else f"pool_{word}"
    return f"{word} {size} stride {stride}".removesuffix(f" stride {size}")


def _is_conv(link: _Link) -> bool:
    return link.edge.get("type") == "conv"


def _activation(node: Group) -> Activation:
    if _field(node, "type") == "sum":
        return "linear"
    function = _field(node, "function")
    if node["type"] != "transfer" or function not in _ACTIVATIONS:
        raise InputError(
            f"nodes '{node['name']}' must be of type sum, or transfer with function {', '.join(_ACTIVATIONS)};"
            f" they are {node['type']} with {function}"
        )
    ours, default, known = _ACTIVATIONS[function]
    if known:
        given = _numbers(node, "function_args", len(known), default)
        if not np.allclose(given, known, rtol=1e-4):
            shown = [",".join(f"{n:g}" for n in one) for one in (known, given)]
            raise InputError(
                f"function_args of {function} nodes '{node['name']}' must be {shown[0]}; they are {shown[1]}"
            )
    return ours


def _array(saved: Groups, name: str, key: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    if key not in saved.get(name, {}):
        raise InputError(f"the saved network must hold {key} of '{name}'; it has none")
    array = np.asarray(saved[name][key])
    if array.shape != shape or array.dtype.kind != "f":
        raise InputError(f"{key} of '{name}' must be real numbers of shape {shape}; got {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{key} of '{name}' must be finite; they hold NaN or infinity")
    return array.astype(np.float32)


def _field(group: Group, key: str, default: str | None = None) -> Any:
    value = group.get(key, default)
    if value is None:
        raise InputError(f"{group['group_type']}s '{group['name']}' must have the field '{key}'; they have not")
    return value


def _numbers(group: Group, key: str, count: int, default: str | None = None) -> tuple[float, ...]:
    value = _field(group, key, default)
    try:
        numbers = tuple(float(n) for n in (value.split(",") if isinstance(value, str) else np.ravel(value)))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count:
        raise InputError(f"{key} of '{group['name']}' must be {count} numbers, with commas between; got {value!r}")
    return numbers


def _integers(group: Group, key: str, count: int, default: str | None = None) -> tuple[int, ...]:
    numbers = _numbers(group, key, count, default)
    if any(n < 1 or n % 1 for n in numbers):
        raise InputError(f"{key} of '{group['name']}' must be positive integers; got {group[key]}")
    return tuple(int(n) for n in numbers)


def _times(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
