"""What a report shows, as plain frozen dataclasses; whatever is absent is None or empty.

Nothing here knows about files or HTML, so a report can be made from Python as well as from a run folder. Scores are
fractions (0.0876, not 8.76 %), thresholds are probabilities of boundary, lengths voxels, places z, y, x.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Decoder = Literal["components", "watershed", "segmentation"]
ErrorKind = Literal["merge", "split"]
Image = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class RandCurve:
    """Rand scores over a threshold (components) or merge level (watershed); four sequences of equal length.

    `merge` is V_merge (precision), `split` V_split (recall), `f` their harmonic mean, all in [0, 1].
    """

    threshold: tuple[float, ...]
    merge: tuple[float, ...]
    split: tuple[float, ...]
    f: tuple[float, ...]


@dataclass(frozen=True)
class InformationCurve:
    """Variation of information over the merge level, bits: H(proposal | truth) and H(truth | proposal)."""

    threshold: tuple[float, ...]
    split: tuple[float, ...]
    merge: tuple[float, ...]


@dataclass(frozen=True)
class DecoderScores:
    """Scores of one way from boundary map to segmentation, at the threshold of best F.

    Attributes
    ----------
    f, merge, split : float in [0, 1]
        Rand F, V_merge (precision) and V_split (recall).
    threshold : float
        Threshold of the boundary map (components) or merge level (watershed) of best F.
    are : mapping of str to float
        Adapted Rand error by the name of its variant.
    vi_split, vi_merge : float, bits
        H(proposal | truth) and H(truth | proposal).
    f_at_fixed, fixed_threshold : float
        F at a threshold that was chosen on other data, and that threshold.
    interval : (low, high)
        95 % interval of F, bootstrapped over sections, or over blocks of a 3-D segmentation.
    f_per_section : tuple of float
        F of each section alone, for the spread.
    """

    f: float
    merge: float | None = None
    split: float | None = None
    threshold: float | None = None
    are: Mapping[str, float] = field(default_factory=dict)
    vi_split: float | None = None
    vi_merge: float | None = None
    f_at_fixed: float | None = None
    fixed_threshold: float | None = None
    interval: tuple[float, float] | None = None
    f_per_section: tuple[float, ...] = ()
    curve: RandCurve | None = None
    information: InformationCurve | None = None


@dataclass(frozen=True)
class PixelError:
    """Pixel error in [0, 1]: best over thresholds, at a threshold fixed beforehand on training data, and the curve."""

    best: float
    threshold: float | None = None
    at_fixed: float | None = None
    fixed_threshold: float | None = None
    curve_threshold: tuple[float, ...] = ()
    curve_error: tuple[float, ...] = ()


@dataclass(frozen=True)
class ModelScores:
    """All scores of one model; `baseline` marks the plain intensity threshold that the others must beat.

    `decoders` are the ways from boundary map to segmentation; "segmentation" is one that was made elsewhere. `sections`
    is the half-open range of evaluated sections; `definitions` names the exact metric variants, `config` the settings.
    """

    model: str
    baseline: bool = False
    pixel_error: PixelError | None = None
    decoders: Mapping[Decoder, DecoderScores] = field(default_factory=dict)
    sections: tuple[int, int] | None = None
    definitions: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def best_f(self) -> float | None:
        """Highest F over the decoders; None if none was scored."""
        return max((scores.f for scores in self.decoders.values()), default=None)


@dataclass(frozen=True)
class ModelPicture:
    """One model on one section, cut like its panel: boundary map (y, x) uint8, 255 = boundary; nearest affinities
    (3, y, x) uint8, 255 = same object; fragments and segmentations uint64.
    """

    model: str
    boundary: Image | None = None
    affinities: Image | None = None
    fragments: Labels | None = None
    segmentations: Mapping[Decoder, Labels] = field(default_factory=dict)


@dataclass(frozen=True)
class SectionPanel:
    """One section: image (y, x) uint8, truth (y, x) uint64 or None, and each model on it.

    `corner` is the (y, x) of the crop's first pixel in the section; `voxel_size` is z, y, x in nm, or None if unknown.
    """

    z: int
    image: Image
    truth: Labels | None = None
    models: tuple[ModelPicture, ...] = ()
    voxel_size: tuple[float, float, float] | None = None
    corner: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class SegmentationError:
    """A place where a model joined two true objects (merge) or cut one (split); the first of its kind is the worst.

    `place` is z, y, x in voxels; `truth_ids` and `segment_ids` are the objects involved; `facts` are further words on
    it (such as pairs of voxels); `panel`, if the section's pictures were kept, is a crop around the place.
    """

    kind: ErrorKind
    model: str
    place: tuple[int, int, int]
    truth_ids: tuple[int, ...] = ()
    segment_ids: tuple[int, ...] = ()
    decoder: Decoder | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    panel: SectionPanel | None = None


@dataclass(frozen=True)
class FeatureRow:
    """One network on one place: boundary map (y, x) uint8, and the chosen maps of the layer (n, y, x) uint8."""

    network: str
    boundary: Image
    maps: Image


@dataclass(frozen=True)
class FeaturePanel:
    """Feature maps of one layer of the networks of a chain, before and after recursion, on one crop of a section.

    `channels` are the numbers of the maps that are shown; each has one scale of grey for all networks.
    """

    layer: str
    z: int
    image: Image
    channels: tuple[int, ...]
    rows: tuple[FeatureRow, ...]


@dataclass(frozen=True)
class Sweep:
    """What `neuropil tune` found: rows as its JSON has them, the best first; `about` says on what."""

    name: str
    rows: tuple[Mapping[str, Any], ...]
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StageTime:
    """What a command, or a step of it in blocks, took.

    Attributes
    ----------
    seconds : float
        Wall-clock time; of a step, the sum over its blocks.
    peak_mb : float or None
        Most memory that one process held, MB.
    voxels, blocks : int or None
    steps : tuple of StageTime
    unfinished : bool
        It was not done when this was read.
    """

    name: str
    seconds: float
    peak_mb: float | None = None
    voxels: int | None = None
    blocks: int | None = None
    steps: tuple[StageTime, ...] = ()
    unfinished: bool = False


@dataclass(frozen=True)
class Validation:
    """One validation of a network in training: of a boundary map its pixel error, of affinities their Rand error."""

    update: int
    pixel_error: float | None = None
    rand_error: float | None = None
    threshold: float | None = None
    loss: float | None = None

    @property
    def error(self) -> float | None:
        """The one that was measured."""
        return self.pixel_error if self.rand_error is None else self.rand_error


@dataclass(frozen=True)
class TrainingLog:
    """One network's training: loss per logged update, speed, validations, and its model card.

    `seconds` is the wall-clock time of the whole training; `pixels_per_second` the median over logged updates.
    """

    network: str
    update: tuple[int, ...] = ()
    loss: tuple[float, ...] = ()
    validations: tuple[Validation, ...] = ()
    seconds: float | None = None
    updates_per_second: float | None = None
    pixels_per_second: float | None = None
    card: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportData:
    """Everything on the page.

    Attributes
    ----------
    title : str
    run : str
        The run folder, as the reader would type it in a command.
    facts : mapping of str to str
        What was run, on which data, with which split and seeds: the lines under the title.
    config, versions, hardware, timings, other : mappings
        Provenance, shown as tables; `timings` are seconds by stage.
    data_notes : tuple of mapping
        Per data set its name, source, licence and citation.
    notes : tuple of str
        Sentences on things that could not be read, shown on top of the page.
    """

    title: str
    run: str
    facts: Mapping[str, str] = field(default_factory=dict)
    models: tuple[ModelScores, ...] = ()
    panels: tuple[SectionPanel, ...] = ()
    errors: tuple[SegmentationError, ...] = ()
    features: tuple[FeaturePanel, ...] = ()
    sweeps: tuple[Sweep, ...] = ()
    stages: tuple[StageTime, ...] = ()
    training: tuple[TrainingLog, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, Any] = field(default_factory=dict)
    data_notes: tuple[Mapping[str, Any], ...] = ()
    other: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
