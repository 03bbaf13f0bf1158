"""Prediction and training step of dense networks in each form, against the plain port and the machine's peak.

    python benchmarks/engine/run.py [--quick | --nets NAMES | --slab | --compiled | --memory | --threads] [--json FILE]

The plain port is conv3d and max_pool3d, dilated, as most would write it, in a process of its own, as most would run it;
"kept" is the same port in this process, which keeps freed memory from step to step as neuropil does. All run the same
shapes and take turns; figures are medians. kvoxel/s counts output voxels. GFLOP/s counts the minimal algorithm (each
feature voxel of the patch once, a training step three times); the peak is a 3x3 convolution of 64 maps of the same
precision, whose median is taken in the same turns. MB is what the process holds at its worst beyond what it held before
(0: of another process). All is hours on two cores; `--nets vd2d,n726-16` is only those. `--slab` instead predicts 10
sections of 1024x1024 with the recursive pair as a user would, under limits of 4 and 16 GB, and projects 100 sections.
`--compiled` instead compares prediction with what torch.compile (which needs a C++ compiler) and, where it is
installed, OpenVINO make of the plain port. `--memory` instead compares the memory that is foreseen for tiles with what
a process takes. `--threads` instead compares one thread with two, four and so on up to all cores.
"""

import argparse
import importlib.util
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from math import gcd, prod
from pathlib import Path

from neuropil import machine

machine.quiet_threads()  # as the command line does

import numpy as np  # noqa: E402
import torch  # noqa: E402
from port import ZNNI, PlainPort, network_named, work  # noqa: E402

from neuropil.networks.architecture import N4, VD2D, VD2D3D  # noqa: E402
from neuropil.networks.checkpoint import Model, save_model  # noqa: E402
from neuropil.networks.network import DenseNetwork, Form  # noqa: E402
from neuropil.networks.planning import peak_memory  # noqa: E402
from neuropil.networks.tuning import large_convolution, peak, tune, usual_forms  # noqa: E402
from neuropil.stages.common import write_volume  # noqa: E402

PATCHES = {"n4": (1, 200, 200), "vd2d": (1, 150, 150), "vd2d3d": (1, 100, 100)}  # the paper's
PREDICTION = {"n4": (1, 512, 512), "vd2d": (1, 512, 512), "vd2d3d": (8, 256, 256)}  # where the patch is free
QUICK = {"n4": (1, 256, 256), "vd2d": (1, 384, 384), "vd2d3d": (4, 192, 192)}
MEMORY = {
    "n4": [(1, 256, 256), (1, 384, 384), (1, 512, 512)],
    "vd2d": [(1, 192, 192), (1, 320, 320), (1, 512, 512)],
    "vd2d3d": [(1, 256, 256), (4, 192, 192), (8, 256, 256)],
}
EDGES = (64, 128, 256, 512, 1024)
SLAB = (10, 1024, 1024)
LONG = 60  # seconds: calls that take longer are timed once, without warming up
PEAKS = 4  # timings of the peak in a turn
HALF = torch.bfloat16
CPU = torch.device("cpu")


def fragmented(architecture) -> list[Form]:
    """Give each layer the most fragments it allows: ZNNi's max-pooling fragments."""
    return [Form(gcd(*dilation[1:])) for dilation in architecture.dilations]


def high_water() -> int:
    """Peak of the process's memory in bytes since it was last reset; 0 where the system does not say."""
    try:
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
    except (OSError, TypeError):
        return 0


class Apart:
    """The plain port in a process of its own."""

    def __init__(self, architecture, patch, phase: str) -> None:
        self.architecture = architecture
        words = [
            sys.executable,
            Path(__file__).with_name("port.py"),
            architecture.name,
            ",".join(map(str, patch)),
            phase,
        ]
        self.process = subprocess.Popen(list(map(str, words)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self) -> float:
        """Run one step."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def measure(cases: dict, phase: str, repeats: int, best: dict) -> tuple[dict, dict]:
    """Time the cases by turns; return median seconds and peak bytes of each.

    The peak is taken in the same turns, several times in each, and its median put into `best`.
    """
    times: dict[str, list[float]] = {case: [] for case in cases}
    large, reached = {dtype: large_convolution(dtype=dtype) for dtype in best}, {dtype: [] for dtype in best}
    first: dict[str, float] = {}
    needed: dict[str, float] = {}
    for turn in range(repeats + 1):
        if turn > 1 and sum(first.values()) > LONG:
            break
        machine.keep_memory(True)
        for dtype, _ in [*large.items()] * PEAKS:
            operations, call = large[dtype]
            start = time.perf_counter()
            call()
            reached[dtype].append(operations / (time.perf_counter() - start) / 1e9)
        for case, (net, patch, form, dtype) in cases.items():
            if turn and first[case] > LONG:
                times[case].append(first[case])
                continue
            if isinstance(net, Apart):
                taken = net.seconds()
                first.setdefault(case, taken)
                needed[case] = 0
                times[case] += [taken] if turn else []
                continue
            call = work(net, patch, form, phase, dtype)
            machine.keep_memory(False)
            if turn == 0:  # sets everything up, and shows what memory it takes
                machine.release()
                before = machine.resident()
                try:
                    Path("/proc/self/clear_refs").write_text("5")
                except OSError:
                    before = 0
                start = time.perf_counter()
                call()
                first[case] = time.perf_counter() - start
                needed[case] = high_water() - before if before else 0
            else:
                machine.keep_memory(True)  # as training and prediction do
                call()  # memory and caches in the order of this case
                start = time.perf_counter()
                call()
                times[case].append(time.perf_counter() - start)
    machine.keep_memory(False)
    for net, *_ in cases.values():
        if isinstance(net, Apart):
            net.close()
    best |= {dtype: statistics.median(speeds[PEAKS:]) for dtype, speeds in reached.items()}
    return {case: statistics.median(taken) for case, taken in times.items()}, needed


def lines_of(name: str, phase: str, cases: dict, median: dict, needed: dict, best: dict, port: str | None) -> list[str]:
    """Write a line a case; ratios are per output voxel against the plain port."""
    lines = []
    for case, (net, patch, _, dtype) in cases.items():
        done = minimal(net.architecture, patch) * (3 if phase == "train" else 1)
        rate, speed = prod(patch) / median[case], done / median[case] / 1e9
        ratio = rate / (prod(cases[port][1]) / median[port]) if port else float("nan")
        lines.append(
            f"{name:8} {phase:6} {case:32} {1e3 * median[case]:9.1f} {rate / 1e3:9.2f} {speed:8.0f}"
            f" {100 * speed / best[dtype]:7.0f} {needed[case] / 1e6:8.0f} {ratio:7.2f}"
        )
    return lines


def minimal(architecture, patch) -> float:
    """Operations of the minimal algorithm."""
    return sum(place.operations for place in architecture.places(patch))


def boundary_network(architecture, phase: str, repeats: int, best: dict, quick: bool) -> tuple[list[str], dict]:
    """Run one of the paper's networks."""
    name, patch = architecture.name, PATCHES[architecture.name]
    network = DenseNetwork(architecture)
    training = phase == "train"
    kinds = [] if quick and architecture != VD2D else [torch.float32] if quick else list(best)
    plans = {dtype: tune(architecture, patch, training=training, dtype=dtype).forms for dtype in kinds}
    port, kept = f"plain port {patch}", "plain port, kept"
    usual = usual_forms(architecture, CPU, torch.float32)
    single = f"{'tuned' if kinds else 'usual forms'} {patch}"
    cases = {
        port: (Apart(architecture, patch, phase), patch, {}, torch.float32),
        f"{kept} {patch}": (PlainPort(network), patch, {}, torch.float32),
        f"direct form {patch}": (network, patch, {}, torch.float32),
        f"usual forms {patch}": (network, patch, {"forms": usual}, torch.float32),
        f"fragments {patch}": (network, patch, {"forms": fragmented(architecture)}, torch.float32),
    }
    if kinds:
        cases[single] = (network, patch, {"forms": plans[torch.float32]}, torch.float32)
    half = f"bfloat16 {patch}"
    if HALF in best:
        cases[half] = (network, patch, {"forms": plans.get(HALF, ())}, HALF)
    large = [PREDICTION[name], *((PREDICTION[name][0], e, e) for e in EDGES)]
    free = [] if training else [QUICK[name]] if quick else list(dict.fromkeys(large))
    for edge in free:
        for dtype in best:
            if peak_memory(architecture, edge) < 8e9:
                forms = usual_forms(architecture, CPU, dtype)
                cases[f"{str(dtype).removeprefix('torch.')} {edge}"] = (network, edge, {"forms": forms}, dtype)
            if edge == free[0]:
                name_of = f"{str(dtype).removeprefix('torch.')}, tuned {edge}"
                cases[name_of] = (network, edge, {"forms": tune(architecture, edge, dtype=dtype).forms}, dtype)
    median, needed = measure(cases, phase, repeats, best)
    rate = {case: prod(edge) / median[case] for case, (_, edge, _, _) in cases.items()}
    figures = {}
    if kinds:
        others = [median[f"{form} {patch}"] for form in ("direct form", "usual forms", "fragments")]
        figures[f"{name}_{phase}_tuner_vs_best"] = median[single] / min(*others, median[single])
    if training:
        figures[f"{name}_train_vs_naive"] = rate[single] / rate[port]
        figures[f"{name}_train_vs_naive_kept"] = rate[single] / rate[f"{kept} {patch}"]
        if HALF in best:
            figures[f"{name}_train_bf16_vs_naive"] = rate[half] / rate[port]
    else:
        fastest = max((case for case in cases if case.startswith("float32")), key=lambda case: rate[case])
        done = minimal(architecture, cases[fastest][1])
        figures[f"{name}_infer_vs_naive"] = rate[fastest] / rate[port]
        figures[f"{name}_infer_vs_naive_kept"] = rate[fastest] / rate[f"{kept} {patch}"]
        figures[f"{name}_infer_pct_peak"] = 100 * done / median[fastest] / 1e9 / best[torch.float32]
        if HALF in best:
            most = max(rate[case] for case in cases if case.startswith("bfloat16"))
            figures[f"{name}_infer_bf16_vs_fp32"] = most / rate[fastest]
    return lines_of(name, phase, cases, median, needed, best, port), figures


def znni_network(architecture, phase: str, repeats: int, best: dict, patch) -> tuple[list[str], dict]:
    """Run one of ZNNi's networks."""
    network = DenseNetwork(architecture)
    port, training = f"plain port {patch}", phase == "train"
    plan = tune(architecture, patch, training=training)
    forms = {"tuned": plan.forms, "direct form": (), "fragments": fragmented(architecture)}
    if sum(conv.maps for conv in architecture.convs) > 300:  # of 80 maps, direct forms take minutes, like the port
        forms = {"tuned": plan.forms}
    cases = {port: (Apart(architecture, patch, phase), patch, {}, torch.float32)}
    cases |= {f"{form} {patch}": (network, patch, {"forms": given}, torch.float32) for form, given in forms.items()}
    median, needed = measure(cases, phase, repeats, best)
    tuned, best_form = median[f"tuned {patch}"], min(median[f"{form} {patch}"] for form in forms)
    name = architecture.name.replace("-", "_")
    figures = {f"{name}_{phase}_vs_naive": median[port] / tuned, f"{name}_{phase}_tuner_vs_best": tuned / best_form}
    return lines_of(architecture.name, phase, cases, median, needed, best, port), figures


def check(architecture) -> None:
    """All forms must agree before anything is timed."""
    network = DenseNetwork(architecture).eval()
    inputs = [torch.randn(1, 1, *(f + 7 for f in architecture.field_of_view)) for _ in range(architecture.streams)]
    with torch.no_grad():
        theirs = PlainPort(network).eval()(inputs)
        for form in ({}, {"forms": fragmented(architecture)}, {"forms": usual_forms(architecture, CPU, torch.float32)}):
            assert (network(inputs, **form) - theirs).abs().max() < 1e-5 * max(1, theirs.abs().max())


ONE_RUN = """
import re, sys
from neuropil.cli import main
code = main(sys.argv[1:])
print("peak", re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1], file=sys.stderr)
sys.exit(code)
"""


def slab(figures: dict) -> None:
    """Predict ten sections with the recursive pair as a user would, under two limits."""
    with tempfile.TemporaryDirectory() as folder:
        model, uri = Path(folder, "pair.safetensors"), f"{folder}/slab.zarr"
        save_model(model, Model((DenseNetwork(VD2D), DenseNetwork(VD2D3D)), {}))
        image = np.random.default_rng(0).integers(0, 256, SLAB, np.uint8)
        write_volume(uri, image, kind="image", place={}, overwrite=False)
        print(f"\nrecursive VD2D-VD2D3D pair over {SLAB}, `neuropil predict`")
        for precision in ("float32", *(["bfloat16"] if machine.has_bfloat16() else [])):
            for limit in (16, 4):
                words = ["predict", "--weights", model, "--input", uri, "--output", f"{folder}/{precision}{limit}.zarr"]
                words += ["--max-memory", limit, "--precision", precision]
                start = time.perf_counter()
                run = subprocess.run(
                    [sys.executable, "-c", ONE_RUN, *map(str, words)], capture_output=True, text=True, check=True
                )
                taken = time.perf_counter() - start
                most = int(re.search(r"peak (\d+)", run.stderr)[1]) * 1024 / 1e9
                print("\n".join(line for line in run.stderr.splitlines() if "tiles of" in line))
                print(
                    f"{precision}, limit {limit} GB: {taken:.0f} s, peak {most:.2f} GB;"
                    f" 100x1024x1024: {taken / 360:.2f} h",
                    flush=True,
                )
                figures[f"slab_{precision}_{limit}gb_seconds"] = taken
                figures[f"slab_{precision}_{limit}gb_peak"] = most
            loss = figures[f"slab_{precision}_4gb_seconds"] / figures[f"slab_{precision}_16gb_seconds"]
            figures[f"slab_{precision}_4gb_vs_16gb"] = loss


def memory(figures: dict) -> None:
    """Compare the memory that is foreseen with what processes take."""
    print(f"{'net':8} {'tile':16} {'precision':>10} {'tiles':>6} {'foreseen / peak':>16}")
    script, found = Path(__file__).with_name("memory.py"), []
    for name, shapes in MEMORY.items():
        for tile, precision, count in product(shapes, ("float32", "bfloat16"), (5, 20)):
            with tempfile.TemporaryDirectory() as folder:
                words = [sys.executable, script, name, ",".join(map(str, tile)), precision, count, f"{folder}/work"]
                run = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=True)
            found.append(float(run.stdout.split()[0]))
            print(f"{name:8} {tile!s:16} {precision:>10} {count:6} {found[-1]:16.3f}", flush=True)
    apart = [abs(one - 1) for one in found]
    figures |= {"memory_apart_median": statistics.median(apart), "memory_apart_max": max(apart)}
    figures["memory_foreseen_min"] = min(found)


def threads(figures: dict) -> None:
    """Compare one thread with more, in prediction and training, by turns."""
    counts = [2**i for i in range((os.cpu_count() or 1).bit_length())]
    print(f"{'net':8} {'phase':6} {'threads':>8} {'ms':>9} {'times one':>10}")
    for architecture, phase in product((N4, VD2D, VD2D3D), ("infer", "train")):
        network = DenseNetwork(architecture)
        call = work(network, PATCHES[architecture.name], {}, phase, torch.float32)
        times: dict[int, list[float]] = {count: [] for count in counts}
        machine.keep_memory(True)
        for _ in range(5):
            for count in counts:
                torch.set_num_threads(count)
                call()
                start = time.perf_counter()
                call()
                times[count].append(time.perf_counter() - start)
        machine.keep_memory(False)
        median = {count: statistics.median(taken) for count, taken in times.items()}
        for count, taken in median.items():
            faster = median[1] / taken
            print(f"{architecture.name:8} {phase:6} {count:8} {1e3 * taken:9.1f} {faster:10.2f}", flush=True)
            if count > 1:
                figures[f"{architecture.name}_{phase}_{count}_threads"] = faster


def compiled(figures: dict) -> None:
    """Compare our layers with what compilers make of the plain port, in prediction."""
    print(f"{'net':8} {'what, patch':40} {'ms':>9} {'max difference':>15}")
    for architecture in (N4, VD2D, VD2D3D):
        patch = QUICK[architecture.name]
        network = DenseNetwork(architecture).eval()
        inputs = [torch.randn(1, 1, *architecture.input_shape(patch)) for _ in range(architecture.streams)]
        rivals = {"ours": network, **of_compilers(PlainPort(network).eval(), inputs)}
        times: dict[str, list[float]] = {name: [] for name in rivals}
        with torch.inference_mode():
            expected = network(inputs)
            apart = {name: float((rival(inputs) - expected).abs().max()) for name, rival in rivals.items()}
            machine.keep_memory(True)
            for _ in range(5):
                for name, rival in rivals.items():
                    rival(inputs)
                    start = time.perf_counter()
                    rival(inputs)
                    times[name].append(time.perf_counter() - start)
            machine.keep_memory(False)
        for name, taken in times.items():
            line = f"{architecture.name:8} {f'{name} {patch}':40} {1e3 * statistics.median(taken):9.1f}"
            print(f"{line} {apart[name]:15.1e}", flush=True)
            if name == "ours":
                continue
            figures[f"{architecture.name} {name} / ours"] = statistics.median(taken) / statistics.median(times["ours"])


def of_compilers(port, inputs) -> dict:
    """Give the plain port as it is, by torch.compile and, where it is installed, by OpenVINO."""
    rivals = {"plain port": port, "torch.compile": torch.compile(port)}
    if importlib.util.find_spec("openvino"):
        import openvino

        model = openvino.compile_model(openvino.convert_model(port, example_input=(inputs,)), "CPU")
        rivals["OpenVINO"] = lambda inputs: torch.from_numpy(model([one.numpy() for one in inputs])[0])
    return rivals


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats, patches and networks: 3 minutes")
    parser.add_argument("--nets", metavar="NAMES", help="only these: n4, vd2d, vd2d3d, n337-16 ... n926-80")
    parser.add_argument("--slab", action="store_true", help="only the slab: some minutes")
    parser.add_argument("--compiled", action="store_true", help="only torch.compile and OpenVINO: some minutes")
    parser.add_argument("--memory", action="store_true", help="only the memory of tiles: some minutes")
    parser.add_argument("--threads", action="store_true", help="only one thread against more: a minute or two")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    best = {torch.float32: peak(), **({HALF: peak(dtype=HALF)} if machine.has_bfloat16() else {})}
    peaks = ", ".join(f"{str(dtype).removeprefix('torch.')} {value:.0f}" for dtype, value in best.items())
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads,")
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"{capability}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}, peak GFLOP/s: {peaks}")
    figures: dict[str, float] = {"peak_gflops": best[torch.float32]}
    if args.slab:
        slab(figures)
    elif args.compiled:
        compiled(figures)
    elif args.memory:
        memory(figures)
    elif args.threads:
        threads(figures)
    else:
        tables(args, best, figures)
    for name, value in figures.items():
        print(f"{name:34} {value:9.2f}")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")


def tables(args, best: dict, figures: dict) -> None:
    """Run the paper's networks, then ZNNi's."""
    print(
        f"{'net':8} {'phase':6} {'form, patch':32} {'ms':>9} {'kvoxel/s':>9} {'GFLOP/s':>8} {'% peak':>7} {'MB':>8}"
        f" {'ratio':>7}"
    )
    quick = args.quick
    paper = {architecture.name: architecture for architecture in (N4, VD2D, VD2D3D)}
    every = [*paper, *(f"{name}-{maps}" for maps in (16, 80) for name in ZNNI)]
    for name in args.nets.split(",") if args.nets else ["vd2d", "vd2d3d", "n337-16"] if quick else every:
        if name in paper:
            check(paper[name])
            for phase in ("infer", "train"):
                lines, more = boundary_network(paper[name], phase, 2 if quick else 7, best, quick)
                print("\n".join(lines), flush=True)
                figures |= more
            continue
        maps = name.split("-")[1]
        patch = (8, 8, 8) if maps == "16" else (4, 4, 4)
        for phase in ("infer",) if quick or maps == "80" else ("infer", "train"):
            lines, more = znni_network(network_named(name), phase, 1 if quick or maps == "80" else 3, best, patch)
            print("\n".join(lines), flush=True)
            figures |= more
    for name, choose, pattern in (
        ("znni_min_vs_naive", min, r"n\d+_16_infer_vs_naive"), ("tuner_vs_best", max, r".*_tuner_vs_best")
    ):  # fmt: skip
        values = [value for key, value in figures.items() if re.fullmatch(pattern, key)]
        figures |= {name: choose(values)} if values else {}


if __name__ == "__main__":
    main()
