"""CVSE trained by PyTorch and by this program, side by side: the same data, parameters and batches.

    python -m benchmarks.recall_vs_pytorch --data data/f30k_small --out runs/recall_vs_pytorch

First without dropout, from the same initial parameters, on the same batches, in the same process: the losses of
`--steps` steps, as a table and as `losses.svg`. Then with dropout, for each seed, `--epochs` epochs of each, again on
the same batches from the same parameters; the recall on test after the last epoch, as a table with mean and standard
deviation. The PyTorch side is a plain PyTorch CVSE, float32 on the CPU. A seed that is done is not done again.
`--steps 0`, or `--seeds` with nothing after it, leaves a part out.
"""

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import tqdm

from benchmarks import torch_cvse
from mhcvse_jax import config as config_lib
from mhcvse_jax.data import batches, dataset
from mhcvse_jax.data.batches import Batch
from mhcvse_jax.devices.mesh import by_batch
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation import protocols
from mhcvse_jax.experiment import reading, training_parts
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.experiment.reading import TrainingData
from mhcvse_jax.files.whole import whole_file
from mhcvse_jax.models.embeddings import Embeddings
from mhcvse_jax.retrieval.encode import EncodedSplit
from mhcvse_jax.run import command_line
from mhcvse_jax.training.step import initialize, make_train_step
from mhcvse_jax.weights import pytorch_layout

TERMS = ("fusion", "instance", "consensus", "kl")
STYLES = ('stroke="#4477aa" stroke-width="5"', 'stroke="#cc3311" stroke-width="2" stroke-dasharray="5 4"')
FOLLOWED = (
    *("model.embedding_dim", "model.word_dim", "model.dropout_rate", "model.fixed_instance_weight"),
    *("model.gru", "model.graph_product", "loss.all_negatives_epochs", "loss.similarity_block"),
    *("optimizer.learning_rate", "optimizer.warmup_epochs", "optimizer.schedule", "optimizer.cosine_cycles"),
    *("optimizer.final_rate_share", "optimizer.step_epochs", "optimizer.step_factor", "optimizer.clip_norm"),
    *("optimizer.adam_b1", "optimizer.adam_b2", "optimizer.adam_eps"),
)
"""Keys of model, loss and optimizer that both sides follow, or that change no result."""
OURS_ALONE = ("compute_dtype", "start_from", "text.word_vectors_path")
"""Keys outside of these sections that would change our side alone."""
COLUMNS = ("i2t R@1", "R@5", "R@10", "t2i R@1", "R@5", "R@10", "rsum")


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 done, 2 bad input, 75 stopped."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recall_vs_pytorch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    path = pathlib.Path
    parser.add_argument("--data", required=True, type=path, metavar="DIR", help="a directory in SCAN's layout")
    parser.add_argument("--out", required=True, type=path, metavar="DIR", help="what is written")
    parser.add_argument("--config", default="configs/cvse_f30k_paper.py", metavar="FILE", help="(default %(default)s)")
    parser.add_argument("--embedding_dim", type=int, default=256, metavar="D", help="(default %(default)s)")
    parser.add_argument("--batch_size", type=int, default=128, metavar="B", help="(default %(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="compared without dropout (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=4, help="trained with dropout (default %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="(default 0 1 2)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="other overrides, for both sides")
    arguments = parser.parse_args(argv)
    return command_line.run(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Does both parts."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.steps:
        compare_losses(arguments)
    if arguments.seeds:
        compare_recalls(arguments)


def overrides(arguments: argparse.Namespace, **more: Any) -> list[str]:
    """Returns the overrides of the configuration that both sides follow."""
    values = {
        "data.dir": arguments.data,
        "model.embedding_dim": arguments.embedding_dim,
        "batch_size": arguments.batch_size,
        **more,
    }
    return [
        f"--config.{override}" for override in (*(f"{key}={value}" for key, value in values.items()), *arguments.set)
    ]


def check_followed(config: config_lib.Config) -> None:
    """Raises InputError for the first key in which our side would differ from CVSE, and PyTorch's would not."""
    cvse = config_lib.cvse()
    for key in config_lib.keys(cvse):
        value, expected = config_lib.lookup(config, key), config_lib.lookup(cvse, key)
        decides = key.startswith(("model.", "loss.", "optimizer.")) or key in OURS_ALONE
        if decides and key not in FOLLOWED and value != expected:
            raise InputError(f"config.{key} is {value!r}; expected {expected!r}, which the PyTorch side has built in")


class Both:
    """Our CVSE and PyTorch's for one configuration, from the same parameters."""

    def __init__(self, config: config_lib.Config, data: TrainingData, workdir: pathlib.Path):
        check_followed(config)
        self.config, self.data = config, data
        self.ours = Experiment.assemble(config, workdir, data.language, jax.devices()[:1])
        steps = batches.steps_per_epoch(data.train, config.batch_size)
        step_parts = training_parts.step_parts(config, self.ours.model, self.ours.graph, self.ours.mesh, steps)
        self.schedule, self.all_negatives_steps = step_parts.schedule, step_parts.settings.all_negatives_steps
        regions_shape = data.train.regions.shape[1:]
        self.state = initialize(step_parts, regions_shape=regions_shape, seed=config.seed)
        self.step = make_train_step(step_parts)
        language = data.language
        adjacency = reading.adjacency(language.concepts, config.concepts)
        values = config.model
        self.torch = torch_cvse.TorchCVSE(
            features=regions_shape[1],
            regions=regions_shape[0],
            vocabulary_size=len(language.vocabulary),
            word_dim=values.word_dim,
            dim=values.embedding_dim,
            adjacency=adjacency.astype(np.float32),
            vectors=language.concept_vectors.astype(np.float32),
            alpha=values.fixed_instance_weight,
            dropout=values.dropout_rate,
        )
        self.optimizer = torch.optim.Adam(
            [parameter for parameter in self.torch.parameters() if parameter.requires_grad],
            lr=config.optimizer.learning_rate,
            betas=(config.optimizer.adam_b1, config.optimizer.adam_b2),
            eps=config.optimizer.adam_eps,
        )

    def copy_parameters(self) -> None:
        """Gives PyTorch's side our parameters."""
        variables = {"params": self.state.params, "batch_stats": self.state.batch_stats}
        arrays = {path: np.asarray(leaf) for path, leaf in pytorch_layout.flatten(variables).items()}
        adjacency = self.torch.modules[pytorch_layout.GCN].adj_all.detach().numpy()
        states = pytorch_layout.to_state_dicts(arrays, adjacency)
        states = [one | two for one, two in zip(states, pytorch_layout.unused(states), strict=True)]
        tensors = [{name: torch.from_numpy(np.array(value)) for name, value in state.items()} for state in states]
        self.torch.load_state_dict(tensors)

    def our_step(self, batch: Batch) -> list[float]:
        """Takes a step of ours; returns the four losses before it."""
        self.state, metrics = self.step(self.state, jax.device_put(batch, by_batch(self.ours.mesh)))
        return [float(metrics[f"loss_{name}"]) for name in TERMS]

    def torch_step(self, batch: Batch, step: int) -> list[float]:
        """Takes a step of PyTorch's; returns the four losses before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = float(np.asarray(self.schedule(step)))
        embeddings = self.torch.embed(*to_torch(batch))
        terms = torch_cvse.losses(*embeddings, hardest=step >= self.all_negatives_steps)
        self.optimizer.zero_grad()
        torch_cvse.total_loss(terms).backward()
        torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], self.config.optimizer.clip_norm)
        self.optimizer.step()
        return [float(term.detach()) for term in terms]


def to_torch(batch: Batch) -> tuple[torch.Tensor, torch.Tensor, list[int], torch.Tensor]:
    """Returns a batch as PyTorch's side reads it: the longest caption first, cut to it."""
    order = np.argsort(-batch.captions.lengths, kind="stable")
    lengths = batch.captions.lengths[order].tolist()
    tokens = torch.from_numpy(batch.captions.tokens[order, : lengths[0]]).long()
    labels = batch.captions.labels[order].astype(np.float32)
    return torch.from_numpy(batch.regions[order]), tokens, lengths, torch.from_numpy(labels)


def batches_of(config: config_lib.Config, data: TrainingData, epoch: int) -> Iterator[Batch]:
    """Yields the batches of an epoch as our training has them."""
    return batches.training_batches(
        data.train,
        batch_size=config.batch_size,
        caption_lengths=config.data.caption_lengths,
        training_label=config.concepts.training_label,
        seed=config.seed,
        epoch=epoch,
        first_step=0,
        threads=config.data.read_threads,
        prefetch=config.data.prefetch_batches,
    )


def compare_losses(arguments: argparse.Namespace) -> None:
    """Prints and draws the losses of both sides, step by step, without dropout."""
    config = config_lib.read(arguments.config, overrides(arguments, **{"model.dropout_rate": 0.0}))
    jax.config.update("jax_default_matmul_precision", "highest")
    data = reading.load_training(config, arguments.data)
    both = Both(config, data, arguments.out)
    both.copy_parameters()
    both.torch.train()
    ours, theirs = [], []
    stream = (batch for epoch in range(config.num_epochs) for batch in batches_of(config, data, epoch))
    for step, batch in zip(tqdm.trange(arguments.steps, desc="without dropout", disable=None), stream, strict=False):
        ours.append(both.our_step(batch))
        theirs.append(both.torch_step(batch, step))
    found, expected = np.array(ours), np.array(theirs)
    difference = np.abs(found / expected - 1).max(axis=1)
    titles = "".join(f"{name:>11} torch{'ours':>11}" for name in TERMS)
    print(f"\n{'step':>5}{titles}   largest relative difference")
    shown = sorted({0, 1, *range(4, len(found), 5), len(found) - 1})
    for step in shown:
        pairs = "".join(f"{b:>17.4f}{a:>11.4f}" for a, b in zip(found[step], expected[step], strict=True))
        print(f"{step + 1:>5}{pairs}   {difference[step]:.1e}")
    content = {"terms": TERMS, "ours": ours, "torch": theirs, "relative_difference": difference.tolist()}
    with whole_file(arguments.out / "losses.json") as path:
        path.write_text(json.dumps(content) + "\n", encoding="utf-8")
    with whole_file(arguments.out / "losses.svg") as path:
        path.write_text(curves(found, expected), encoding="utf-8")
    print(f"\nlargest relative difference of a loss: {difference.max():.1e}; curve in {arguments.out / 'losses.svg'}")


def curves(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Returns an SVG of the four losses <float>[steps, 4] of both sides: a line each, PyTorch's dashed above ours."""
    width, height, left = 260, 200, 50
    parts = []
    for number, name in enumerate(TERMS):
        both = np.stack([ours[:, number], theirs[:, number]])
        low, high = both.min(), both.max() + 1e-9
        x0 = left + number * (width + left)
        for values, style in zip(both, STYLES, strict=True):
            points = " ".join(
                f"{x0 + i * width / max(len(values) - 1, 1):.1f},{30 + height * (high - value) / (high - low):.1f}"
                for i, value in enumerate(values)
            )
            parts.append(f'<polyline fill="none" {style} points="{points}"/>')
        parts.append(f'<text x="{x0}" y="20">{name}: {low:.4g} to {high:.4g}</text>')
        parts.append(f'<text x="{x0}" y="{height + 48}">step 1 to {len(ours)}</text>')
        parts.append(f'<path d="M{x0} 30v{height}h{width}" fill="none" stroke="#888"/>')
    legend = f'<text x="{left}" y="{height + 72}" fill="#4477aa">this program: solid</text>'
    legend += f'<text x="{left + 190}" y="{height + 72}" fill="#cc3311">PyTorch: dashed</text>'
    size = f'width="{left + 4 * (width + left)}" height="{height + 85}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="14">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(parts)}{legend}</svg>\n'
    )


def compare_recalls(arguments: argparse.Namespace) -> None:
    """Trains both sides with dropout for each seed; prints their recalls on test."""
    found = []
    for seed in arguments.seeds:
        path = arguments.out / f"recalls_seed{seed}.json"
        wanted = {key: getattr(arguments, key) for key in ("config", "epochs", "embedding_dim", "batch_size", "set")}
        wanted |= {"data": str(arguments.data)}
        if path.exists():
            one = json.loads(path.read_text(encoding="utf-8"))
            if one["settings"] != wanted:
                raise InputError(f"{path} is of {one['settings']}; expected {wanted}, or another --out")
        else:
            more = {"num_epochs": arguments.epochs, "seed": seed}
            config = config_lib.read(arguments.config, overrides(arguments, **more))
            one = {"settings": wanted} | train_both(config, arguments)
            with whole_file(path) as partial:
                partial.write_text(json.dumps(one, indent=2) + "\n", encoding="utf-8")
        found.append(one)
    names = ("r1", "r5", "r10")
    print(f"\n{'test, last epoch':<22}" + "".join(f"{name:>14}" for name in COLUMNS))
    for side in ("ours", "torch"):
        rows = [[one[side][way][name] for way in ("i2t", "t2i") for name in names] for one in found]
        table = np.array([[*row, sum(row)] for row in rows])
        for seed, row in zip(arguments.seeds, table, strict=True):
            print(f"{side + f', seed {seed}':<22}" + "".join(f"{value:>14.1f}" for value in row))
        spread = table.std(axis=0, ddof=1) if len(table) > 1 else np.full(7, np.nan)
        cells = [f"{mean:.1f} ± {sd:.1f}" for mean, sd in zip(table.mean(axis=0), spread, strict=True)]
        print(f"{side + ', mean ± sd':<22}" + "".join(f"{cell:>14}" for cell in cells))


def train_both(config: config_lib.Config, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the recalls of both sides after the last epoch; same batches and initial parameters, own dropout."""
    torch.manual_seed(config.seed)
    data = reading.load_training(config, arguments.data)
    both = Both(config, data, arguments.out)
    both.copy_parameters()
    both.torch.train()
    steps = batches.steps_per_epoch(data.train, config.batch_size)
    seconds = {"ours": 0.0, "torch": 0.0}
    stream = (batch for epoch in range(config.num_epochs) for batch in batches_of(config, data, epoch))
    bar = tqdm.tqdm(stream, desc=f"seed {config.seed}", total=config.num_epochs * steps, disable=None)
    for step, batch in enumerate(bar):
        started = time.perf_counter()
        ours = both.our_step(batch)
        between = time.perf_counter()
        theirs = both.torch_step(batch, step)
        seconds["ours"] += between - started
        seconds["torch"] += time.perf_counter() - between
        if step % 100 == 0:
            bar.write(f"seed {config.seed}, step {step + 1}: fusion loss {ours[0]:.2f}, torch {theirs[0]:.2f}")
    test = both.ours.load_split(arguments.data, "test", (1,))
    variables = {"params": both.state.params, "batch_stats": both.state.batch_stats}
    encoded = {"ours": both.ours.encoder(variables, test), "torch": encode_torch(both.torch, test, config)}
    recalls = {
        side: protocols.standard(
            embeddings, test.image_of_caption, consensus_weight=config.eval.consensus_weight, folds=1
        )["fused"]
        for side, embeddings in encoded.items()
    }
    return {side: {"i2t": one.i2t._asdict(), "t2i": one.t2i._asdict()} for side, one in recalls.items()} | {
        "seconds": seconds
    }


def encode_torch(model: torch_cvse.TorchCVSE, split: dataset.Split, config: config_lib.Config) -> EncodedSplit:
    """Returns the embeddings of a split by PyTorch's side."""
    model.train(mode=False)
    sides: list[list[Embeddings]] = [[], []]
    for start in range(0, split.num_captions, config.eval.batch_size):
        captions = np.arange(start, min(start + config.eval.batch_size, split.num_captions))
        batch = batches.read_batch(split, captions, config.data.caption_lengths, training_label="caption")
        back = np.argsort(np.argsort(-batch.captions.lengths, kind="stable"))
        with torch.no_grad():
            found = model.embed(*to_torch(batch))
        for side, (instance, consensus, fused, concepts) in zip(sides, found, strict=True):
            side.append(Embeddings(*(part.numpy()[back] for part in (instance, consensus, fused, concepts))))
    image, text = (jax.tree.map(lambda *parts: jnp.concatenate(parts), *side) for side in sides)
    first = np.searchsorted(split.image_of_caption, np.arange(split.num_images))
    return EncodedSplit(jax.tree.map(lambda values: values[first], image), text)


if __name__ == "__main__":
    sys.exit(main())
