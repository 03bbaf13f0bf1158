"""Weights on disk: one safetensors file with its card in the header, and the card again as JSON beside it for people.

A model is a chain of networks: the first sees the image, each later one sees the image and the boundary map of the
one before. A recursive pair is thus one file. A U-Net that predicts affinities is a model by itself. The header is what
is read, so a file that lost its JSON still works.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from neuropil import __version__
from neuropil.errors import InputError, StorageFull, VolumeError
from neuropil.files import replacing, write_json
from neuropil.networks.network import DenseNetwork
from neuropil.networks.packaged import architecture_of, read_card, weights_path
from neuropil.networks.rsunet import RSUNet
from neuropil.networks.unet_architecture import UNetArchitecture

Network = DenseNetwork | RSUNet
NORMALISATION = "per section: subtract mean, divide by standard deviation"


@dataclass(frozen=True)
class Model:
    """A chain of boundary networks, or one U-Net, and the card that says what it is.

    Attributes
    ----------
    networks : in the order they run
    card : JSON-able: data, training, voxel_size (z, y, x; nm), patch (z, y, x) of a U-Net, scores, licence
    """

    networks: tuple[Network, ...]
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def unet(self) -> RSUNet | None:
        """The U-Net, or None for a chain of boundary networks."""
        first = self.networks[0]
        return first if isinstance(first, RSUNet) else None

    @property
    def chain(self) -> tuple[DenseNetwork, ...]:
        """The boundary networks.

        Raises
        ------
        InputError : it is a U-Net
        """
        chain = tuple(net for net in self.networks if isinstance(net, DenseNetwork))
        if len(chain) < len(self.networks):
            raise InputError(f"'{self.name}' is a U-Net that predicts affinities; a boundary network is needed here")
        return chain

    @property
    def name(self) -> str:
        """The architectures, joined by arrows."""
        return " -> ".join(net.architecture.name for net in self.networks)


def save_model(path: Path, model: Model) -> None:
    """Write `path` (safetensors) and `path` with suffix .json, each atomically."""
    tensors = {
        f"{index}.{name}": value.detach().cpu().contiguous()
        for index, net in enumerate(model.networks)
        for name, value in net.named_weights().items()
    }
    card = {
        **model.card,
        "format": "neuropil-model-1",
        "neuropil": __version__,
        "networks": [net.architecture.to_dict() for net in model.networks],
        "outputs": "affinities" if model.unet else ["interior", "boundary"],
        "normalisation": NORMALISATION,
    }
    write_tensors(path, tensors, card)
    write_json(path.with_suffix(".json"), card)


def load_model(path: str | Path) -> Model:
    """Read a model: a weights file, or a packaged model by its name.

    Raises
    ------
    VolumeNotFound : no such file
    VolumeError : not a safetensors file, or truncated
    InputError : safetensors of another program, weights that do not fit their own card, or an unknown name
    """
    path = weights_path(path)
    tensors, card = read_tensors(path)
    if card.get("format") != "neuropil-model-1":
        raise InputError(f"{path} holds weights of another program or architecture: it has no neuropil model card")
    descriptions = card["networks"]
    if not descriptions:
        raise InputError(f"{path} holds no network")
    networks: list[Network] = []
    for index, description in enumerate(descriptions):
        architecture = architecture_of(description)
        net = RSUNet(architecture) if isinstance(architecture, UNetArchitecture) else DenseNetwork(architecture)
        net.load_weights(_part(tensors, index))
        networks.append(net.eval())
    return Model(tuple(networks), card)


def _part(tensors: Mapping[str, Tensor], index: int) -> dict[str, Tensor]:
    """Weights of one network of a file, by its own names."""
    prefix = f"{index}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: dict[str, Any]) -> None:
    """Write tensors with a JSON header to `path`, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(path) as part:
            part.touch()
            mode = part.stat().st_mode
            save_file(dict(tensors), part, {"card": json.dumps(header)})
            part.chmod(mode)  # the library makes files that only their owner reads
    except (SafetensorError, OSError) as error:
        raise StorageFull(f"cannot write {path}: {error}; the checkpoint before it is kept") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the JSON header of a safetensors file."""
    header = read_card(path)
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise VolumeError(f"{path} is not a readable safetensors file: {error}") from None


def pick_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; "auto" is CUDA where there is one, else the CPU.

    Raises
    ------
    InputError : CUDA is asked for and not there
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device '{name}' is not available; torch {torch.__version__} sees no CUDA device here")
    try:
        return torch.device(name)
    except RuntimeError:
        raise InputError(f"device must be auto, cpu, cuda or cuda:N; got '{name}'") from None
