"""Slow twin of ZNN's forward pass, from the definition of its layers, and its file formats.

A network is a dictionary name → fields, as in ZNN's files: `group_type` "edge" or "node", `input`, `output`, ...
"""

import itertools
from math import prod

import h5py
import numpy as np

from neuropil.networks.architecture import Conv, Pool

TANH = {"function": "tanh", "function_args": "1.7159,0.6666"}
RELU, LINEAR = {"function": "rectify_linear"}, {"function": "linear"}
SMALL = [((1, 2, 3), 3, RELU), ((1, 2, 2), (1, 2, 2)), ((2, 3, 2), 2, LINEAR)]
FUNCTIONS = {
    "rectify_linear": lambda x: np.maximum(x, 0),
    "linear": lambda x: x,
    "tanh": lambda x: 1.7159 * np.tanh(0.6666 * x),
}


def forward(groups, image):
    """Output maps (maps, z, y, x) for an image (z, y, x): follow the edges from the image on."""
    maps, sparse = image[None].astype(np.float64), (1, 1, 1)
    here = next(name for name, group in groups.items() if group["type"] == "input")
    while edge := next((one for one in groups.values() if one.get("input") == here), None):
        here = edge["output"]
        node = groups[here]
        if edge["type"] == "conv":
            maps = np.stack([sum(map(lambda a, b: convolve(a, b, sparse), maps, w)) for w in _by_output(edge)])
        elif edge["type"] == "max_filter":
            maps = np.stack([max_filter(one, edge["size"], sparse) for one in maps])
            sparse = tuple(a * b for a, b in zip(sparse, edge["stride"]))
        if node["type"] == "transfer":
            maps = FUNCTIONS[node["function"]](maps + node["biases"][:, None, None, None].astype(np.float64))
    return maps


def _by_output(edge):
    return np.asarray(edge["filters"], np.float64).swapaxes(0, 1)


def convolve(image, filters, sparse):
    """Convolution where the filter lies inside the image; its voxels are `sparse` apart.

    Voxel v of the result takes, for i = 0 ... k-1 along each axis, image[v + sparse·i] times filter[k-1-i].
    """
    shape = [n - (k - 1) * s for n, k, s in zip(image.shape, filters.shape, sparse)]
    out = np.zeros(shape)
    for i in itertools.product(*map(range, filters.shape)):
        window = tuple(slice(s * j, s * j + n) for j, s, n in zip(i, sparse, shape))
        out += image[window] * filters[tuple(k - 1 - j for k, j in zip(filters.shape, i))]
    return out


def max_filter(image, size, sparse):
    """Maximum of the voxels of a window, which are `sparse` apart."""
    shape = [n - (k - 1) * s for n, k, s in zip(image.shape, size, sparse)]
    windows = itertools.product(*map(range, size))
    return np.max([image[tuple(slice(s * j, s * j + n) for j, s, n in zip(i, sparse, shape))] for i in windows], axis=0)


def network(layers, rng, names, dtype=np.float32):
    """A chain of layers with random weights; a layer is (size, maps, fields of its node), (size, stride) or a ratio."""
    groups = {"image": {"group_type": "node", "type": "input", "size": (1,)}}
    here, maps = "image", 1
    for layer, name in zip(layers, names, strict=True):
        there = f"n{name}"
        if isinstance(layer, float):
            edge, node = {"type": "dropout", "ratio": str(layer)}, {"type": "sum"}
        elif len(layer) == 2:
            edge, node = {"type": "max_filter", "size": layer[0], "stride": layer[1]}, {"type": "sum"}
        else:
            size, after, node = layer
            filters = rng.normal(0, (maps * prod(size)) ** -0.5, (maps, after, *size)).astype(dtype)
            edge = {"type": "conv", "init": "msra", "size": size, "stride": (1, 1, 1), "filters": filters}
            biases = rng.normal(0, 0.3, after).astype(dtype)
            node = {"type": "transfer", **node, "biases": biases} if node else {"type": "sum"}
            maps = after
        groups[name] = {"group_type": "edge", **edge, "input": here, "output": there}
        groups[there] = {"group_type": "node", **node, "size": (maps,)}
        here = there
    return groups


def save(path, groups, place="processing/znn/train/network", updates=None):
    """Write the file that ZNN would write."""
    with h5py.File(path, "w") as file:
        for name, fields in groups.items():
            group = file.require_group(f"{place}/{name}")
            group["name"] = name
            for key, value in fields.items():
                group[key] = value if isinstance(value, str) else np.asarray(value)
                if key in ("filters", "biases"):
                    group["momentum_vol"] = np.zeros_like(value)
        if updates is not None:
            file["processing/znn/train/statistics/train/it"] = np.arange(0, updates + 1, 100)


def describe(groups):
    """The same network as the text of a .znn file, without its weights."""
    lines = []
    for name, fields in groups.items():
        lines += ["", f"{fields['group_type']}s {name}"]
        for key, value in fields.items():
            if key not in ("group_type", "filters", "biases"):
                lines.append(f"{key} {value if isinstance(value, str) else ','.join(map(str, value))}")
    return "\n".join(lines) + "\n"


def small(seed=0):
    return network(SMALL, np.random.default_rng(seed), ["first", "pooling", "last"])


def described(architecture):
    """A .znn file of one of our architectures."""
    layers = []
    functions = {"relu": RELU, "linear": LINEAR, "tanh": TANH}
    for layer in architecture.layers:
        if isinstance(layer, Conv):
            layers.append((layer.size, layer.maps, functions[layer.activation]))
        else:
            layers.append((layer.size, layer.stride) if isinstance(layer, Pool) else 1 - layer.rate)
    names = [line.split()[0] for line in architecture.lines]
    return describe(network(layers, np.random.default_rng(0), names))
