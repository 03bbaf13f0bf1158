"""Slow twin of the dense networks: the pooling network, run on one window at a time."""

import torch
from torch.nn import functional

from neuropil.networks.activation import TANH_GAIN, TANH_SLOPE
from neuropil.networks.architecture import Conv, Pool


def window_by_window(network, inputs):
    """Logits (2, z, y, x) of the network with real, strided pooling, on every window of the inputs (z, y, x)."""
    view = network.architecture.field_of_view
    windows = []
    for volume in inputs:
        cut = volume.unfold(0, view[0], 1).unfold(1, view[1], 1).unfold(2, view[2], 1)
        windows.append(cut.reshape(-1, 1, *view))
    shape = [n - v + 1 for n, v in zip(inputs[0].shape, view)]
    out = torch.cat([_pooling_net(network, [w[i : i + 16] for w in windows]) for i in range(0, len(windows[0]), 16)])
    return out.reshape(*shape, 2).permute(3, 0, 1, 2)


def _pooling_net(network, streams):
    architecture, weights = network.architecture, network.named_weights()
    for layer in architecture.layers:
        if isinstance(layer, Pool):
            streams = [functional.max_pool3d(x, layer.size, layer.stride) for x in streams]
        elif isinstance(layer, Conv):
            joined = layer.name == architecture.join
            made = []
            for x, stream in zip(streams, ("", ".recursive")):
                bias = None if joined and stream else weights[f"{layer.name}{stream}.bias"]
                made.append(functional.conv3d(x, weights[f"{layer.name}{stream}.weight"], bias))
            streams = [sum(made)] if joined else made
            if layer.activation == "relu":
                streams = [x.clamp(min=0) for x in streams]
            elif layer.activation == "tanh":
                streams = [TANH_GAIN * torch.tanh(TANH_SLOPE * x) for x in streams]
    assert streams[0].shape[2:] == (1, 1, 1)
    return streams[0].flatten(1)
