"""The list of measurements on a GPU, the most telling first."""

from typing import NamedTuple


class Step(NamedTuple):
    """One measurement: commands that run one after another, of which the last leaves the rows.

    In arguments `{rows}` stands for the JSON file that is to hold the rows, `{work}` for a directory that lasts as long
    as the call. A command without rows leaves the end of what it prints.
    """

    name: str
    seconds: float  # on an H100; check, floor_tf32 and pairs as measured, others by them
    commands: tuple[str, ...]  # module and arguments, after `python -m`
    toy: tuple[str, ...] = ()  # the same at sizes for a CPU; none: another step's toy stands for it
    needs: str = ""  # a package without which there is nothing to measure


def _step_vs_pytorch(precision: str, options: str = "--gru scan plain") -> str:
    return (
        f"benchmarks.step_vs_pytorch --size full --device cuda --precision {precision} --batches 16 --rounds 20 "
        f"{options} --output {{rows}}"
    )


def _gru(precision: str) -> str:
    return f"benchmarks.gru --dim 1024 --words 32 --rounds 50 --precision {precision} --output {{rows}}"


def _floor(precision: str) -> str:
    return f"benchmarks.floor --size full --width 8192 --rounds 50 --precision {precision} --output {{rows}}"


TOY_STEP = "benchmarks.step_vs_pytorch --size tiny --rounds 1 --batches 1 "
TOY_DATA = "--train 40 --dev 10 --test 10"
TOY_RUN = "model.embedding_dim=8 model.word_dim=4 model.num_heads=2 concepts.num=10 batch_size=16"
SCENES = "mhcvse_jax.scenes.build {work}/scenes"
MODELS = "benchmarks.models --data {work}/scenes --out {work}/models --config configs/f30k_small.py --seeds 0"

STEPS = (
    # First whether the numbers are right at all, then who is faster, what `choose_gru` should take and what a whole run
    # takes, then where a step's time goes.
    Step(
        "check",
        120,
        ("benchmarks.step_vs_pytorch --size full --device cuda --only_check",),
        (TOY_STEP + "--only_check",),
        needs="torch",
    ),
    Step("step_tf32", 200, (_step_vs_pytorch("tf32"),), (TOY_STEP + "--output {rows}",), needs="torch"),
    Step(
        "gru_tf32",
        120,
        (_gru("tf32"),),
        ("benchmarks.gru --batch 8 --words 5 --word_dim 3 --dim 4 --rounds 1 --output {rows}",),
    ),
    Step(
        "whole_run",
        170,
        (
            "benchmarks.synthetic {work}/synthetic --train 29000 --dev 1014 --test 1000",
            "benchmarks.whole_run --data {work}/synthetic --epochs 3 --set compute_dtype=bfloat16 --output {rows}",
        ),
        (
            f"benchmarks.synthetic {{work}}/synthetic {TOY_DATA} --features 16 --regions 4",
            "benchmarks.whole_run --data {work}/synthetic --epochs 1 --placements host --config configs/f30k_small.py "
            f"--set {TOY_RUN} --output {{rows}}",
        ),
    ),
    Step("floor_tf32", 130, (_floor("tf32"),), ("benchmarks.floor --size tiny --rounds 1 --width 32 --output {rows}",)),
    Step("step_bfloat16", 200, (_step_vs_pytorch("bfloat16"),), needs="torch"),
    # Recalls of the built-in data set beside those that a CPU gave: whether a GPU learns the same.
    Step(
        "models",
        130,
        (
            f"{SCENES} --train 3000 --dev 200 --test 500",
            f"{MODELS} --models mhcvse vsepp cvse cross_attention --set concepts.num=30 text.remove_stop_words=False",
        ),
        (f"{SCENES} {TOY_DATA}", f"{MODELS} --models mhcvse --set num_epochs=1 {TOY_RUN}"),
    ),
    Step(
        "pairs",
        30,
        ("benchmarks.pairs --output {rows}",),
        ("benchmarks.pairs --images 3 --captions 4 --words 5 --dim 16 --width 32 --rounds 1 --output {rows}",),
    ),
    Step(
        "recall",
        30,
        ("benchmarks.recall --rounds 20 --output {rows}",),
        ("benchmarks.recall --images 20 --dim 8 --rounds 1 --output {rows}",),
    ),
    Step(
        "detector",
        60,
        ("benchmarks.detector --rounds 10 --output {rows}",),
        ("benchmarks.detector --size tiny --rounds 1 --width 32 --picture 37 53 --chunk 5 --output {rows}",),
    ),
    Step("floor_bfloat16", 130, (_floor("bfloat16"),)),
    Step("gru_bfloat16", 120, (_gru("bfloat16"),)),
    Step("pairs_bfloat16", 30, ("benchmarks.pairs --dtype bfloat16 --output {rows}",)),
    Step("detector_bfloat16", 60, ("benchmarks.detector --compute_dtype bfloat16 --rounds 10 --output {rows}",)),
    Step(
        "search",
        40,
        ("benchmarks.search --vectors 100000 --rounds 7 --faiss --output {rows}",),
        ("benchmarks.search --vectors 304 --dim 16 --rounds 1 --faiss --output {rows}",),
    ),
    Step("step_float32", 200, (_step_vs_pytorch("float32"),), needs="torch"),
    Step("floor_float32", 130, (_floor("float32"),)),
    Step("gru_float32", 120, (_gru("float32"),)),
    Step("step_bfloat16_compile", 200, (_step_vs_pytorch("bfloat16", "--compile --twins fast"),), needs="torch"),
)
