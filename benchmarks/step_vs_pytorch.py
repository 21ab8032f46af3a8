"""A training step of ours and of PyTorch's twin, in turn, in one process, at the same precision.

    python -m benchmarks.step_vs_pytorch --size full --device cpu

First both compute the loss of the same batch from the same parameters, and its gradient's norm; unless these agree
nothing is timed. On a GPU set XLA_PYTHON_CLIENT_PREALLOCATE=false, so that both find memory.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import numpy as np

from benchmarks import timing
from benchmarks.workload import (
    PRECISIONS,
    SIZES,
    ResidentTrainer,
    Sizes,
    Trainer,
    make_batches,
    make_config,
    make_graph,
    set_precision,
)
from mhcvse_jax.data.batches import Batch
from mhcvse_jax.errors import InputError
from mhcvse_jax.run import command_line

# Of the loss and of the gradient's norm, relative. In float32 the order of sums differs; in the others products are
# rounded to 11 or 8 bits.
TOLERANCES = {"float32": 1e-4, "tf32": 1e-2, "bfloat16": 5e-2}
TWINS = ("fast", "fast, attention pooled", "plain")


def our_loss_and_gradient(trainer: Trainer, batch: Batch) -> tuple[float, float]:
    """Returns the loss of a batch and its gradient's norm; takes a step."""
    before = trainer.place(batch)
    trainer.state, metrics = trainer._step(trainer.state, before)
    return float(metrics["loss"]), float(metrics["gradient_norm"])


def check_same(sizes: Sizes, batch: Batch, precision: str, device: str) -> dict[str, float]:
    """Returns how far each twin's loss and gradient norm are from ours, without dropout.

    Raises:
      AssertionError: farther than the tolerance.
    """
    import torch  # pyright: ignore[reportMissingImports]

    from benchmarks.torch_twin import Twin, TwinTrainer, copy_parameters

    config = make_config(sizes, dropout_rate=0.0)
    config.compute_dtype = set_precision(precision)
    trainer = Trainer(sizes, config)
    params = jax.tree.map(np.array, trainer.state.params)
    expected = our_loss_and_gradient(trainer, batch)
    differences = {}
    for name in TWINS:
        twin = make_twin(Twin, config, sizes, name)
        copy_parameters(params, twin)
        theirs = TwinTrainer(
            config, twin, [batch], device=device, precision=precision, on_device=False, compile_model=False
        )
        loss = theirs.loss(0)
        loss.backward()
        norm = gradient_norm(twin)
        found = (float(loss.detach()), norm)
        differences[name] = max(abs(a / b - 1) for a, b in zip(found, expected, strict=True))
        assert differences[name] < TOLERANCES[precision], f"{name}: {found}; ours {expected}"
        del theirs, twin
        if device == "cuda":
            torch.cuda.empty_cache()
    return differences


def gradient_norm(twin: Any) -> float:
    """Returns the norm of the twin's gradient over the parameters that our model has too.

    PyTorch's GRU has a second bias for the gates r and z, which is the first over again.
    """
    squares = 0.0
    for name, parameter in twin.named_parameters():
        gradient = parameter.grad.double()
        if "bias_hh" in name:
            gradient = gradient[-(len(gradient) // 3) :]
        squares += float((gradient**2).sum())
    return squares**0.5


def make_twin(twin_class: Any, config: Any, sizes: Sizes, name: str) -> Any:
    """Returns the twin of that name."""
    return twin_class(
        config,
        make_graph(sizes),
        features=sizes.features,
        vocabulary=sizes.vocabulary,
        fast=name != "plain",
        pooled="pooled" in name,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = timing.parser((__doc__ or "").splitlines()[0], rounds=5)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="on both sides")
    parser.add_argument("--twins", nargs="+", choices=TWINS, default=list(TWINS), help="ways to write the twin")
    parser.add_argument("--gru", nargs="+", choices=("auto", "plain", "scan", "packed", "pallas"), default=["auto"])
    parser.add_argument("--batches", type=int, default=4, help="different batches; a run takes a step on each")
    parser.add_argument("--data", choices=("device", "host"), default="device", help="where features lie before a step")
    parser.add_argument("--compile", action="store_true", help="torch.compile the fast twins")
    parser.add_argument("--only_check", action="store_true", help="compare the losses, time nothing")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("torch") is None:
        raise InputError('PyTorch is not installed; expected it, by pip install ".[torch]"')
    if (options.device == "cuda") != (jax.default_backend() == "gpu"):
        raise InputError(f"--device {options.device}, but JAX runs on {jax.default_backend()}; expected the same")
    import torch  # pyright: ignore[reportMissingImports]

    from benchmarks.torch_twin import Twin, TwinTrainer

    sizes = SIZES[options.size]
    config = make_config(sizes)
    batches = make_batches(sizes, config, options.batches)
    differences = check_same(sizes, batches[0], options.precision, options.device)
    for name, difference in differences.items():
        print(f"the same loss and gradient norm as torch, {name}: within {difference:.1e}", flush=True)
    if options.only_check:
        return

    config.compute_dtype = set_precision(options.precision)
    programs: dict[str, Callable[[], Any]] = {}
    for gru in options.gru:
        trainer = Trainer(sizes, make_step_config(config, gru))
        ready = [trainer.place(batch) for batch in batches] if options.data == "device" else batches
        programs[f"ours, GRU {gru}"] = lambda trainer=trainer, ready=ready: [
            trainer.step(trainer.place(batch)) for batch in ready
        ]
    if options.data == "device":
        resident = ResidentTrainer(sizes, config, batches)
        programs[f"ours, {len(batches)} steps a dispatch"] = resident.run
    for name in options.twins:
        theirs = TwinTrainer(
            config,
            make_twin(Twin, config, sizes, name),
            batches,
            device=options.device,
            precision=options.precision,
            on_device=options.data == "device" and name != "plain",
            compile_model=options.compile and name != "plain",
        )

        def run(theirs=theirs):
            for number in range(options.batches):
                theirs.step(number)
            theirs.wait()

        programs[f"torch, {name}"] = run
    times = timing.interleave(programs, options.rounds)

    setting = f"{options.size}, {options.precision}, features on the {options.data}"
    if options.compile:
        setting += ", torch.compile"
    threads = f"{torch.get_num_threads()} threads, " if options.device == "cpu" else ""
    print(f"device    {timing.device_name()}; {setting}; torch {torch.__version__}, {threads}{options.rounds} rounds")
    our_names = [name for name in times if name.startswith("ours")]
    print(
        f"\n{'a step':<32}{'median ms':>11}{'CPU ms':>9}"
        + "".join(f"  {name + ' is':>27}" for name in our_names)
        + "  spread"
    )
    rows = []
    for name, time in times.items():
        scaled = timing.Timing(time.seconds / options.batches, time.cpu_seconds / options.batches)
        ratios = [timing.ratio(time, times[ours]) for ours in our_names]
        speeds = "".join(f"{speed:>22.2f} x fast" for speed in ratios)
        cpu = 1e3 * float(np.median(scaled.cpu_seconds))
        print(f"{name:<32}{1e3 * scaled.median:>11.1f}{cpu:>9.1f}{speeds}  {scaled.spread}")
        if name in our_names:
            continue
        for ours, speed in zip(our_names, ratios, strict=True):
            our_time = timing.Timing(times[ours].seconds / options.batches, times[ours].cpu_seconds / options.batches)
            rows.append(
                timing.row(
                    f"training step, {setting}: {ours}, against {name}",
                    ours=1e3 * our_time.median,
                    theirs=1e3 * scaled.median,
                    ratio=speed,
                    unit="ms",
                    spread=f"{our_time.spread} against {scaled.spread}",
                    cpu_ratio=round(timing.cpu_ratio(time, times[ours]), 2),
                    torch=torch.__version__,
                )
            )
    timing.save(options.output, rows)


def make_step_config(config: Any, gru: str) -> Any:
    """Returns the configuration with this way to compute the GRU."""
    chosen = config.copy_and_resolve_references()
    chosen.model.gru = gru
    return chosen


if __name__ == "__main__":
    sys.exit(command_line.run(main))
