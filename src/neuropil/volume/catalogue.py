"""The public data sets, as data. Facts only; what is not known is None or says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RemoteFile:
    """One file to download: its address, the name to keep it under, its published SHA-256 and size (about)."""

    url: str
    name: str
    sha256: str | None = None
    megabytes: float | None = None


@dataclass(frozen=True)
class Stack:
    """How a dataset of the prepared file is made: `pattern` is a path in the archive, or a dataset of an HDF5 file."""

    dataset: str
    pattern: str
    meaning: str
    like: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A public data set.

    `voxel_size_nm` is z, y, x. `folder`/`file` is where it lies below a data folder; `also` are patterns of other
    files in that folder that hold it or a part of it. `layout` says what is in the file.
    """

    name: str
    title: str
    tissue: str
    voxel_size_nm: tuple[float, float, float]
    layout: str
    licence: str
    citation: str
    page: str
    folder: str
    file: str
    files: tuple[RemoteFile, ...]
    also: tuple[str, ...] = ()
    prepare: Literal["", "stacks", "merged"] = ""
    stacks: tuple[Stack, ...] = ()


_EMBL = "https://oc.embl.de/index.php/s"
_FIB25 = "https://storage.googleapis.com/ffn-flyem-fib25/training_sample2"
_GALA = (
    "https://raw.githubusercontent.com/janelia-flyem/gala/db73a1c84d8a99975a2a8fb68660a83d8889ab1e/tests/example-data"
)
_CREMI_CITATION = "Funke et al. 2016, MICCAI Challenge on Circuit Reconstruction from EM Images, https://cremi.org"
_CREMI_LAYOUT = "volumes/raw, volumes/labels/neuron_ids and /clefts (2**64-1 = unlabelled), partners"
_CREMI_SHA256 = {
    "A": "4c563d1b78acb2bcfb3ea958b6fe1533422f7f4a19f3e05b600bfa11430b510d",
    "B": "887e85521e00deead18c94a21ad71f278d88a5214c7edeed943130a1f4bb48b8",
    "C": "2874496f224d222ebc29d0e4753e8c458093e1d37bc53acd1b69b19ed1ae7052",
}
_CREMI_MEGABYTES = {"A": 167.0, "B": 160.0, "C": 165.0}


def _cremi(letter: str, *, padded: bool) -> Dataset:
    file = f"sample_{letter}_{'padded_' if padded else ''}20160501.hdf"
    return Dataset(
        name=f"cremi_{letter.lower()}{'_padded' if padded else ''}",
        title=f"CREMI training volume {letter}" + (", raw padded by context" if padded else ", 125×1250×1250"),
        tissue="adult fruit fly brain, ssTEM",
        voxel_size_nm=(40.0, 4.0, 4.0),
        layout=_CREMI_LAYOUT,
        licence="none stated; a public challenge, cite it",
        citation=_CREMI_CITATION,
        page="https://cremi.org/data",
        folder="cremi",
        file=file,
        files=(
            RemoteFile(
                f"https://cremi.org/static/data/{file}",
                file,
                None if padded else _CREMI_SHA256[letter],
                None if padded else _CREMI_MEGABYTES[letter],
            ),
        ),
    )


DATASETS: tuple[Dataset, ...] = (
    Dataset(
        name="vnc",
        title="Segmented anisotropic ssTEM dataset of neural tissue, stack 1 and 2, 20×1024×1024 each",
        tissue="fruit fly larva ventral nerve cord, ssTEM",
        voxel_size_nm=(47.5, 4.6, 4.6),
        layout="raw, labels (0/32/64/96/128 membrane by orientation and junction, 159 glia or extracellular, "
        "191 mitochondrion, 223 synapse, 255 inside), raw_stack2 (unlabelled)",
        licence="CC BY-NC-SA 3.0",
        citation="Gerhard, Funke, Martel, Cardona, Fetter 2013, Segmented anisotropic ssTEM dataset of neural tissue, "
        "figshare, https://doi.org/10.6084/m9.figshare.856713",
        page="https://github.com/unidesigner/groundtruth-drosophila-vnc",
        folder="vnc",
        file="vnc.h5",
        also=("*.h5",),
        files=(
            RemoteFile(
                "https://github.com/unidesigner/groundtruth-drosophila-vnc/archive/refs/heads/master.zip",
                "groundtruth-drosophila-vnc-master.zip",
                "f7bd0db03c86b64440a16b60360ad60c0a4411f89e2c021c7ee2c8d6af3d7e86",
            ),
        ),
        prepare="stacks",
        stacks=(
            Stack("raw", "*/stack1/raw/*.tif", "image"),
            Stack(
                "labels",
                "*/stack1/labels/*.png",
                "0,32,64,96 oriented membrane; 128 junction; 159 glia/extracellular; 191 mitochondrion; "
                "223 synapse; 255 inside",
                like="raw",
            ),
            Stack("raw_stack2", "*/stack2/raw/*.tif", "image"),
        ),
    ),
    Dataset(
        name="isbi2012",
        title="ISBI 2012 neuron segmentation challenge, training volume, 30×512×512, with 3-D truth",
        tissue="fruit fly larva ventral nerve cord, ssTEM",
        voxel_size_nm=(50.0, 4.0, 4.0),
        layout="raw, labels/membranes, labels/gt_segmentation",
        licence="free for generating or testing non-commercial image segmentation software",
        citation="Cardona et al. 2010, PLoS Biol 8(10) e1000502; Arganda-Carreras et al. 2015, Front. Neuroanat. 9:142",
        page="https://doi.org/10.3389/fnana.2015.00142",
        folder="isbi2012",
        file="isbi.h5",
        also=("*.h5",),
        files=(
            RemoteFile(
                f"{_EMBL}/h0TkwqxU0PJDdMd/download",
                "isbi.h5",
                "0e10fe909a1243084d91773470856993b7d40126a12e85f0f1345a7a9e512f29",
            ),
        ),
    ),
    Dataset(
        name="snemi3d",
        title="SNEMI3D training volume (AC4), 100×1024×1024",
        tissue="mouse cortex, ssSEM",
        voxel_size_nm=(30.0, 6.0, 6.0),
        layout="volumes/raw, volumes/labels/neuron_ids (0 = membrane or extracellular)",
        licence="none stated; a public challenge, cite it",
        citation="Kasthuri et al. 2015, Cell 162(3) 648-661, https://doi.org/10.1016/j.cell.2015.06.054",
        page="https://doi.org/10.1016/j.cell.2015.06.054",
        folder="snemi3d",
        file="snemi_train.h5",
        also=("ac4.h5",),
        files=(
            RemoteFile(
                f"{_EMBL}/43iMotlXPyAB39z/download",
                "snemi_train.h5",
                "5b130a24d9eb23d972fede0f1a403bc05f6808b361cfa22eff23b930b12f0615",
            ),
        ),
    ),
    Dataset(
        name="fib25",
        title="FIB-25 training sample 2",
        tissue="fruit fly medulla, FIB-SEM",
        voxel_size_nm=(10.0, 10.0, 10.0),
        layout="raw, neuron_ids (segments touch, no membrane class)",
        licence="CC BY (neuroproof_examples)",
        citation="Takemura et al. 2015, PNAS 112(44) 13711-13716, https://doi.org/10.1073/pnas.1509820112",
        page="https://github.com/janelia-flyem/neuroproof_examples",
        folder="fib25",
        file="fib25_sample2.h5",
        also=("fib25_*.h5",),
        files=(
            RemoteFile(
                f"{_FIB25}/grayscale_maps.h5",
                "grayscale_maps.h5",
                "ea031c98ee2de778a9a3a1e6d410df5de73e4ac28022df8e7255d84e3394cafa",
            ),
            RemoteFile(
                f"{_FIB25}/groundtruth.h5",
                "groundtruth.h5",
                "fd508e7aee1fe51ac9ae0460db4a841d275236f013c1f2552314b4f21b1010ea",
            ),
        ),
        prepare="merged",
        stacks=(Stack("raw", "raw", "image"), Stack("neuron_ids", "stack", "labels", like="raw")),
    ),
    *(_cremi(letter, padded=padded) for padded in (False, True) for letter in "ABC"),
    Dataset(
        name="gala",
        title="gala's agglomeration example, training part, 50×100×200",
        tissue="fruit fly, FIB-SEM",
        voxel_size_nm=(10.0, 10.0, 10.0),
        layout="train_image, train_gt, train_ws (fragments), train_p1 (boundary map)",
        licence="BSD-3-Clause style (HHMI)",
        citation="Nunez-Iglesias et al. 2013, PLoS ONE 8(8) e71715; 2014, Front. Neuroinform. 8:34",
        page="https://github.com/janelia-flyem/gala",
        folder="gala",
        file="gala_train.h5",
        files=(
            RemoteFile(f"{_GALA}/train-image.h5", "train-image.h5"),
            RemoteFile(f"{_GALA}/train-gt.lzf.h5", "train-gt.lzf.h5"),
            RemoteFile(f"{_GALA}/train-ws.lzf.h5", "train-ws.lzf.h5"),
            RemoteFile(f"{_GALA}/train-p1.lzf.h5", "train-p1.lzf.h5"),
        ),
        prepare="merged",
        stacks=(
            Stack("train_image", "stack", "image"),
            Stack("train_gt", "stack", "labels"),
            Stack("train_ws", "stack", "fragments"),
            Stack("train_p1", "stack", "boundary map"),
        ),
    ),
    Dataset(
        name="lucchi",
        title="Lucchi++: mitochondria, training and test volume with revised labels",
        tissue="mouse hippocampus CA1, FIB-SEM",
        voxel_size_nm=(5.0, 5.0, 5.0),
        layout="train_raw, train_mito, test_raw, test_mito (0 = not a mitochondrion)",
        licence="none stated with the download; ask its authors before passing it on",
        citation="Casser, Kang, Pfister, Haehn 2018, arXiv:1812.06024; Lucchi et al. 2013, CVPR",
        page="https://sites.google.com/view/connectomics/",
        folder="lucchi",
        file="lucchi.h5",
        files=(
            RemoteFile(
                "http://www.casser.io/files/lucchi_pp.zip",
                "lucchi_pp.zip",
                "770ce9e98fc6f29c1b1a250c637e6c5125f2b5f1260e5a7687b55a79e2e8844d",
            ),
        ),
        prepare="stacks",
        stacks=(
            Stack("train_raw", "Lucchi++/Train_In/*.png", "image"),
            Stack("train_mito", "Lucchi++/Train_Out/*.png", "mask of mitochondria", like="train_raw"),
            Stack("test_raw", "Lucchi++/Test_In/*.png", "image"),
            Stack("test_mito", "Lucchi++/Test_Out/*.png", "mask of mitochondria", like="test_raw"),
        ),
    ),
)
