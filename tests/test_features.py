"""Feature maps: those of the last layer are the prediction, those of the first a plain convolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import TINY, TINY_RECURSIVE
from torch.nn import functional

from neuropil.errors import InputError
from neuropil.geometry import Box
from neuropil.networks.features import feature_maps, map_source
from neuropil.networks.inference import predict
from neuropil.networks.network import DenseNetwork

SHAPE, BOX = (4, 30, 34), Box((1, 0, 20), (3, 17, 34))
IMAGE = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
FLAT, DEEP = DenseNetwork(TINY, 0), DenseNetwork(TINY_RECURSIVE, 1)


def image(box: Box) -> np.ndarray:
    return IMAGE[box.slices]


def test_the_last_layer_is_the_prediction() -> None:
    boundary = predict(FLAT, [IMAGE])
    np.testing.assert_allclose(map_source(FLAT, [image], SHAPE)(BOX), boundary[BOX.slices], atol=1e-6)
    for network, inputs in ((FLAT, [IMAGE]), (DEEP, [IMAGE, boundary])):
        sources = [image, map_source(FLAT, [image], SHAPE)][: len(inputs)]
        made = feature_maps(network, sources, SHAPE, BOX, "output")[""]
        probability = 1 / (1 + np.exp(made[0] - made[1]))
        np.testing.assert_allclose(probability, predict(network, inputs)[BOX.slices], atol=1e-5)


def test_the_first_layer_is_a_convolution_of_the_mirrored_image() -> None:
    made = feature_maps(FLAT, [image], SHAPE, Box.of_shape(SHAPE), "conv1")[""]
    weights = FLAT.named_weights()
    padded = torch.from_numpy(np.pad(IMAGE, ((0, 0), (0, 1), (0, 1)), mode="reflect"))[None, None]
    wanted = functional.conv3d(padded, weights["conv1.weight"], weights["conv1.bias"]).relu()[0]
    np.testing.assert_allclose(made, wanted.numpy(), atol=1e-5)
    assert made.shape == (6, *SHAPE)


def test_streams_before_the_join_are_told_apart() -> None:
    apart = DenseNetwork(
        type(TINY_RECURSIVE)("apart", ("first 1x2x2 3", "second 1x2x2 4", "output 1x1x1 2 linear"), join="second"),
        seed=3,
    )
    streams = feature_maps(apart, [image, lambda box: image(box) + 1], SHAPE, BOX, "first")
    assert {name: maps.shape for name, maps in streams.items()} == {"image": (3, *BOX.shape), "map": (3, *BOX.shape)}
    weights = apart.named_weights()
    moved = {
        "first.weight": weights["first.recursive.weight"], "first.bias": weights["first.recursive.bias"],
        "output.weight": torch.zeros(2, 3, 1, 1, 1), "output.bias": torch.zeros(2),
    }  # fmt: skip
    alone = DenseNetwork(type(TINY)("alone", ("first 1x2x2 3", "output 1x1x1 2 linear")))
    alone.load_weights(moved)
    wanted = feature_maps(alone, [lambda box: image(box) + 1], SHAPE, BOX, "first")[""]
    np.testing.assert_array_equal(streams["map"], wanted)
    assert list(feature_maps(apart, [image, image], SHAPE, BOX, "second")) == [""]


def test_a_layer_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(InputError, match="'tiny' has no convolution 'pool1'; it has conv1, conv2, output"):
        feature_maps(FLAT, [image], SHAPE, BOX, "pool1")
