"""What a picture costs the detector, part by part, against the least it could, and against the same network in PyTorch.

    python -m benchmarks.detector

The weights are random: what is computed has the same shape for any. A picture's floor is that of its products, for the
picture's own size, at the rate of a large square product in the same minute; what lies beside it on its canvas, places
of proposals that are not there, and everything that is no product are distance from the floor. On a CPU floors are in
CPU time, of all threads, which other work on the machine disturbs less.
"""

import functools
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from benchmarks.detector_state import State, random_state
from benchmarks.floor import rate_programs
from mhcvse_jax.detection.anchors import NUM_ANCHORS
from mhcvse_jax.detection.faster_rcnn import VISUAL_GENOME, Architecture, Detections, FasterRCNN
from mhcvse_jax.detection.heads import NUM_BINS
from mhcvse_jax.detection.pixels import Canvas, prepare
from mhcvse_jax.detection.proposals import Search
from mhcvse_jax.detection.resnet import stem_size
from mhcvse_jax.detection.selection import FIXED_36
from mhcvse_jax.detection.weights import read_weights
from mhcvse_jax.files.torch_file import write_torch_file

WHOLE = "whole picture"
SIZES = {  # the tiny one is for tests
    "full": (VISUAL_GENOME, Search()),
    "tiny": (Architecture((1, 1, 1, 1), 2, 7, 11, 5), Search(num_candidates=211, num_proposals=37)),
}


def flops(architecture: Architecture, size: tuple[int, int], num_proposals: int) -> dict[str, float]:
    """Returns the operations of the products of a picture, by part; a multiplication and an addition are two.

    Args:
      architecture: sizes of the network.
      size: height and width of the scaled picture.
      num_proposals: whose features are computed.
    """

    def product(cells: float, inputs: int, outputs: int, kernel: int = 1) -> float:
        return 2 * cells * inputs * outputs * kernel * kernel

    def stage(cells: float, inputs: int, width: int, num_blocks: int) -> float:
        block = product(cells, width, width, 3) + product(cells, width, 4 * width)
        first = product(cells, inputs, width) + product(cells, inputs, 4 * width)
        return num_blocks * block + first + (num_blocks - 1) * product(cells, 4 * width, width)

    width, channels, features = architecture.width, architecture.proposal_channels, architecture.features_dim
    sides = np.array(size)
    trunk = product(np.prod(stem_size(sides)), 3, width, 7)
    sides = stem_size(sides) // 2
    inputs = width
    for number, num_blocks in enumerate(architecture.blocks[:3]):
        sides = sides if number == 0 else stem_size(sides)
        trunk += stage(np.prod(sides), inputs, width << number, num_blocks)
        inputs = 4 * width << number
    cells = np.prod(sides)
    classes, hidden = 1 + architecture.num_classes, 8 * width
    attributes = product(1, features + 4 * width, hidden) + product(1, hidden, 1 + architecture.num_attributes)
    return {
        "feature map": float(trunk),
        "proposals": float(product(cells, inputs, channels, 3) + product(cells, channels, 5 * NUM_ANCHORS)),
        "region features": stage(num_proposals * NUM_BINS**2, inputs, 8 * width, architecture.blocks[3]),
        "choice": product(num_proposals, features, classes) + FIXED_36.most * attributes,
    }


def part_programs(model: FasterRCNN, variables: Any, canvas: Canvas) -> dict[str, Callable[[], Any]]:
    """Returns the parts of the detector, each alone on what the part before it gives, and the whole."""
    pixels, size, scale = map(jnp.asarray, canvas)

    def part(method: Any) -> Callable[..., Any]:
        return functools.partial(jax.jit(functools.partial(model.apply, method=method)), variables)

    trunk, detect = part(lambda module, *inputs: module.trunk(*inputs)), part(None)
    propose, features, choose = part("propose"), part("features"), part("choose")
    feature_map = trunk(pixels, size)
    proposals = propose(feature_map, size, scale)
    found = features(feature_map, size, proposals.boxes)
    return {
        "feature map": lambda: trunk(pixels, size),
        "proposals": lambda: propose(feature_map, size, scale),
        "region features": lambda: features(feature_map, size, proposals.boxes),
        "choice": lambda: choose(proposals, found, scale),
        WHOLE: lambda: detect(pixels, size, scale),
    }


def torch_programs(
    architecture: Architecture, search: Search, state: State, canvas: Canvas
) -> tuple[dict[str, Callable[[], Any]], str] | None:
    """Returns the same parts of the same network in PyTorch, and PyTorch's version; None where it is not there."""
    try:
        import torch  # pyright: ignore[reportMissingImports]
        import torchvision.ops  # pyright: ignore[reportMissingImports] # noqa: F401
    except (ImportError, RuntimeError):  # the latter where torchvision was built for another PyTorch
        return None
    from benchmarks.torch_faster_rcnn import FasterRCNN as TorchFasterRCNN

    network = TorchFasterRCNN(*architecture, search.num_candidates, search.num_proposals).eval()
    network.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    size, scale = tuple(canvas.size.tolist()), float(canvas.scale)
    picture = torch.from_numpy(canvas.pixels[: size[0], : size[1]].transpose(2, 0, 1)[None].copy())

    def choice(features: Any, boxes: Any) -> Any:
        scores, _ = network.roi_heads["box_predictor"](features)
        return network.choose(network.confidences(boxes / scale, scores), FIXED_36.fewest, FIXED_36.most)

    with torch.no_grad():
        feature_map = network.backbone(picture)
        boxes = network.propose(feature_map, size, scale)
        features = network.features(network.pool(feature_map, boxes))
    parts = {
        "feature map": lambda: network.backbone(picture),
        "proposals": lambda: network.propose(feature_map, size, scale),
        "region features": lambda: network.features(network.pool(feature_map, boxes)),
        "choice": lambda: choice(features, boxes),
        WHOLE: lambda: [x.numpy() for x in network(picture, scale)],
    }
    return {part: torch.no_grad()(program) for part, program in parts.items()}, torch.__version__


def check_equal(ours: Detections, theirs: list[np.ndarray]) -> float:
    """Returns the largest difference of a feature, relative to the largest feature.

    Raises:
      AssertionError: the regions are others, or features differ by more than 1e-4.
    """
    boxes, features = theirs[:2]
    num = len(boxes)
    assert int(ours.num) == num, f"{ours.num} regions, {num} in PyTorch"
    distances = np.abs(np.asarray(ours.boxes)[None, :num] - boxes[:, None]).max(axis=2)
    assert distances.min(axis=1).max() < 0.01, f"a region is {distances.min(axis=1).max():.2f} pixels off"
    places = distances.argmin(axis=1)  # near ties may have changed places
    worst = float(np.abs(np.asarray(ours.features)[places] - features).max() / features.max())
    assert worst < 1e-4, f"features differ by {worst:.1e}"
    return worst


def _ratio(times: dict[str, timing.Timing], part: str) -> float:
    """Returns how many times the CPU time of ours PyTorch takes for a part."""
    return timing.cpu_ratio(times[f"PyTorch: {part}"], times[part])


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = timing.parser((__doc__ or "").splitlines()[0], rounds=3)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--compute_dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--picture", type=int, nargs=2, default=(375, 500), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--chunk", type=int, default=FasterRCNN.chunk, help="proposals at once")
    parser.add_argument("--width", type=int, default=4096, help="of the square product that shows the device's rate")
    options = parser.parse_args(arguments)

    architecture, search = SIZES[options.size]
    state = random_state(architecture, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "weights.pth"
        write_torch_file(path, {"model": state})
        variables = jax.device_put(read_weights(path, architecture).variables)
    dtype = jnp.dtype(options.compute_dtype)
    model = FasterRCNN(architecture, FIXED_36, search, options.chunk, dtype)
    picture = np.random.default_rng(0).integers(0, 256, (*options.picture, 3)).astype(np.uint8)
    canvas = prepare(picture)
    programs = part_programs(model, variables, canvas)
    parts = list(programs)
    theirs = torch_programs(architecture, search, state, canvas) if jax.default_backend() == "cpu" else None
    print(f"device    {timing.device_name()}, {dtype}")
    print(f"picture   {options.picture[0]} x {options.picture[1]}, scaled to {canvas.size[0]} x {canvas.size[1]}")
    if theirs is not None:
        if dtype == jnp.float32:
            print(f"values    features equal within {check_equal(programs[WHOLE](), theirs[0][WHOLE]()):.1e}")
        programs |= {f"PyTorch: {part}": program for part, program in theirs[0].items()}
    rates = rate_programs(options.compute_dtype, options.width)
    times = timing.interleave({"product": rates["product"]} | programs, options.rounds)

    def spent(part: str) -> np.ndarray:
        return times[part].cpu_seconds if jax.default_backend() == "cpu" else times[part].seconds

    unit = "CPU ms" if jax.default_backend() == "cpu" else "ms"
    rate = 2 * options.width**3 / spent("product").min()
    cost = flops(architecture, tuple(canvas.size), search.num_proposals)
    cost[WHOLE] = sum(cost.values())
    print(f"rate      {rate / 1e12:.3f} TFLOP/s (product of {options.width})")
    heads = f"{'part':<18}{'GFLOP':>9}{'floor':>10}{'ours':>10}{'ratio':>7}{'PyTorch':>10}{'ratio':>7}"
    print(f"\n{heads}  fastest to slowest of ours, in {unit}")
    rows = []
    name_of = f"{options.size}, {options.compute_dtype}, {options.picture[0]} x {options.picture[1]}"
    for part in parts:
        floor, ours = cost[part] / rate, float(np.median(spent(part)))
        spread = f"{1e3 * spent(part).min():.1f} to {1e3 * spent(part).max():.1f}"
        line = f"{part:<18}{cost[part] / 1e9:>9.2f}{1e3 * floor:>10.1f}{1e3 * ours:>10.1f}{ours / floor:>7.2f}"
        if theirs is not None:
            other = float(np.median(spent(f"PyTorch: {part}")))
            line += f"{1e3 * other:>10.1f}{_ratio(times, part):>7.2f}"
        print(f"{line}  {spread}")
        rows.append(
            timing.row(
                f"detector: {part}, {name_of}",
                ours=1e3 * ours,
                theirs=1e3 * floor,
                ratio=floor / ours,
                unit=f"{unit} (theirs: the floor)",
                spread=spread,
                gflop=float(f"{cost[part] / 1e9:.4g}"),
            )
        )
    for part, torch_version in [(part, theirs[1]) for part in parts] if theirs is not None else []:
        ours, other = times[part], times[f"PyTorch: {part}"]
        rows.append(
            timing.row(
                f"detector: {part} against PyTorch, {name_of}",
                ours=1e3 * ours.median,
                theirs=1e3 * other.median,
                ratio=timing.ratio(other, ours),
                unit="ms",
                spread=ours.spread,
                cpu_ratio=float(f"{_ratio(times, part):.3g}"),
                torch=torch_version,
            )
        )
    timing.save(options.output, rows)


if __name__ == "__main__":
    main()
