"""What torch can do on this machine."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TorchFacts:
    """Versions, the GPUs that torch sees, and the threads it uses.

    Attributes
    ----------
    version : of torch
    cuda : version of CUDA that torch was built with, or None
    gpus : name and memory of each
    threads : within one operation
    """

    version: str
    cuda: str | None
    gpus: tuple[str, ...]
    threads: int


def torch_facts() -> TorchFacts:
    """Compute a little on every device and tell what is there.

    Raises
    ------
    RuntimeError : a device computes nothing, or something wrong

    Examples
    --------
    >>> torch_facts().threads >= 1
    True
    """
    devices = ["cpu", *(f"cuda:{k}" for k in range(torch.cuda.device_count() if torch.cuda.is_available() else 0))]
    for device in devices:
        image = torch.ones(1, 1, 3, 3, device=device)
        if torch.nn.functional.conv2d(image, torch.ones(1, 1, 3, 3, device=device)).item() != 9.0:
            raise RuntimeError(f"a convolution on {device} is wrong")
    gpus = []
    for device in devices[1:]:
        known = torch.cuda.get_device_properties(device)
        gpus.append(f"{known.name}, {known.total_memory / 1e9:.0f} GB")
    return TorchFacts(torch.__version__, torch.version.cuda, tuple(gpus), torch.get_num_threads())
