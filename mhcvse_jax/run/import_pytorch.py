"""A workdir made from a checkpoint of PyTorch's CVSE: its configuration, words, concepts and parameters."""

import argparse
import os
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mhcvse_jax import config as config_lib
from mhcvse_jax import models
from mhcvse_jax.config import Config
from mhcvse_jax.data import word_vectors
from mhcvse_jax.data.concepts import given_concepts, read_cvse_words
from mhcvse_jax.data.dataset import Language
from mhcvse_jax.data.text import Vocabulary
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment import parts, reading, training_parts
from mhcvse_jax.layers.concept_gcn import concept_graph
from mhcvse_jax.training.checkpoint import Checkpoints
from mhcvse_jax.training.step import TrainState
from mhcvse_jax.weights import pytorch_layout
from mhcvse_jax.weights.pytorch_checkpoint import Checkpoint, Sizes, read_checkpoint, read_sizes
from mhcvse_jax.weights.pytorch_layout import GCN, MODULES, TEXT
from mhcvse_jax.weights.pytorch_options import ALPHA, KEYS_OF_OPTIONS

SUPPORTED = {
    "no_imgnorm": (False,),
    "no_txtnorm": (False,),
    "use_abs": (False,),
    "activation_type": ("tanh",),
    "measure": ("cosine",),
    "feature_fuse_type": ("weight_sum", "concat", "adap_sum"),
}
"""Values of `opt` that change what is computed and leave no trace in the tensors."""


def import_checkpoint(arguments: argparse.Namespace) -> None:
    """Writes the workdir, completely or not at all, and prints what became of each tensor."""
    out = arguments.out
    if out.exists():
        raise InputError(f"--out {out} exists; expected a new directory")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: {out.parent} is not a directory; expected an existing one")
    if arguments.data_dir and not arguments.data_dir.is_dir():
        raise InputError(f"--data_dir {arguments.data_dir}: no such directory")
    checkpoint = read_checkpoint(arguments.checkpoint)
    sizes = read_sizes(checkpoint)
    config = configuration(checkpoint, sizes, arguments)
    language = read_language(checkpoint, sizes, config, arguments)
    arrays, not_used = convert(checkpoint, sizes, config, language)
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        partial.mkdir()
        write_workdir(partial, config, language, arrays, checkpoint)
        partial.rename(out)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    total = sum(array.size for path, array in arrays.items() if path.startswith("params/"))
    print(f"{checkpoint.path}: {config.model.name}, D {sizes.embedding_dim}, {total:,} parameters imported")
    for module, names in enumerate(not_used):
        if names:
            print(f"not used  model[{module}] ({MODULES[module]}): {', '.join(names)}")
    print(
        f"evaluate  python -m mhcvse_jax.evaluate --workdir {out}" + ("" if arguments.data_dir else " --data_dir DIR")
    )


def configuration(checkpoint: Checkpoint, sizes: Sizes, arguments: argparse.Namespace) -> Config:
    """Returns the configuration that gives the same model, and the same evaluation, as that program.

    Raises:
      InputError: `opt` asks for what is not supported, or the data set is not known.
    """
    path, options = checkpoint.path, checkpoint.options
    for name, values in SUPPORTED.items():
        is_array = isinstance(options.get(name), np.ndarray)
        if name in options and (is_array or options[name] not in values):
            found, expected = "an array" if is_array else repr(options[name]), ", ".join(map(repr, values))
            raise InputError(f"{path}: opt.{name} is {found}, not supported; expected {expected}")
    data_name = arguments.data_name or next((n for n in ALPHA if n in str(options.get("data_name"))), None)
    if data_name is None:
        raise InputError(f"{path}: opt.data_name is {options.get('data_name')!r}; say --data_name f30k or coco")
    config = config_lib.cvse()
    config.matmul_precision = "highest"  # PyTorch's products are float32
    config.data.dir = str(arguments.data_dir or "")
    config.text.bytes_literal = True
    config.concepts.num = sizes.num_concepts
    config.concepts.vector_dim = sizes.concept_dim
    model = config.model
    model.embedding_dim, model.word_dim = sizes.embedding_dim, sizes.word_dim
    model.pooling, model.fusion = sizes.pooling, sizes.fusion
    model.fixed_instance_weight = ALPHA[data_name]
    config.eval.max_captions = 5000
    config.eval.label_neighbours = data_name
    config.seed = arguments.seed
    if data_name == "coco":
        config.eval.test_split, config.eval.folds = "testall", (5, 1)
    if sizes.has_attention:
        model.name, model.num_heads, model.attention_input = "mhcvse", 8, "unit"
    said = {name: options[name] for name in KEYS_OF_OPTIONS if options.get(name) is not None}
    for name in ("num_heads", "attention_input", "attention_residual"):
        if not sizes.has_attention:
            said.pop(name, None)
        elif getattr(arguments, name) is not None:
            said[name] = getattr(arguments, name)
    for name, value in said.items():
        _set(config, KEYS_OF_OPTIONS[name], value, f"{path}: opt.{name}")
    if options.get("max_violation") is False:  # then it sums over all negatives, to the end
        config.loss.all_negatives_epochs = float(config.num_epochs)
    of_gcn = options.get("learning_rate_MLGCN")
    if of_gcn is not None:
        where = f"{path}: opt.learning_rate_MLGCN"
        _set(config, "optimizer.gcn_rate_factor", of_gcn, where)
        config.optimizer.gcn_rate_factor /= config.optimizer.learning_rate or 1.0
    if sizes.has_attention and model.num_heads < 1:
        raise InputError(f"{path}: opt.num_heads is {model.num_heads}; expected 1 or more")
    try:
        config_lib.check(config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return config.lock()


def _set(config: Config, key: str, value: Any, where: str) -> None:
    section, name = key.rpartition(".")[::2]
    target = config_lib.lookup(config, section) if section else config
    kind = type(target[name])
    try:
        if isinstance(value, bool) != (kind is bool):
            raise TypeError(f"expected {kind.__name__}")
        target[name] = kind(value)
        if kind is int and target[name] != value:
            raise ValueError("expected a whole number")
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where} is {value!r}, which cannot be config.{key} ({error})") from error


def read_language(checkpoint: Checkpoint, sizes: Sizes, config: Config, arguments: argparse.Namespace) -> Language:
    """Returns vocabulary, concepts and their graph, and concept vectors, whose numbers are those of the checkpoint.

    Raises:
      InputError: a file cannot be read, or its count differs from the checkpoint's.
    """
    vocabulary = Vocabulary.load(arguments.vocab)
    if len(vocabulary) != sizes.vocabulary_size:
        raise InputError(
            f"{arguments.vocab} has {len(vocabulary)} words; expected {sizes.vocabulary_size}, the rows of "
            f"{checkpoint.where(TEXT, 'embed.weight')}"
        )
    words = read_cvse_words(arguments.concepts)
    adjacency = checkpoint.tensor(GCN, "adj_all", 2).astype(np.float32)
    if len(words) != sizes.num_concepts:
        raise InputError(
            f"{arguments.concepts} has {len(words)} concepts; expected {sizes.num_concepts}, the rows of "
            f"{checkpoint.where(GCN, 'adj_all')}"
        )
    vectors = word_vectors.read_concept_vectors(arguments.concept_embeddings, words, sizes.concept_dim)
    if not vectors.found.all():
        missing = words[int(np.argmin(vectors.found))]
        raise InputError(f"{arguments.concept_embeddings}: has no vector for {missing!r}; expected one per concept")
    try:
        concepts = given_concepts(words, adjacency)
    except InputError as error:
        raise InputError(f"{checkpoint.where(GCN, 'adj_all')}: {error}") from error
    text = config.text
    return Language(vocabulary, concepts, vectors.vectors, text.remove_stop_words, text.bytes_literal)


def convert(
    checkpoint: Checkpoint, sizes: Sizes, config: Config, language: Language
) -> tuple[dict[str, np.ndarray], list[list[str]]]:
    """Returns our arrays by path, and the names of the tensors that were not used, module by module.

    Raises:
      InputError: a tensor is missing, unknown, of another shape, or not finite.
    """
    model = models.build(config.model, vocabulary_size=sizes.vocabulary_size, dtype="float32")
    edges = reading.graph_edges(language.concepts, config.concepts)
    graph = concept_graph(language.concept_vectors, edges.senders, edges.receivers, edges.weights)
    shapes = parts.model_shapes(model, graph, (sizes.num_regions or 1, sizes.feature_dim))
    like = {path: np.broadcast_to(np.float32(0), leaf.shape) for path, leaf in pytorch_layout.flatten(shapes).items()}
    expected = pytorch_layout.to_state_dicts(like, np.broadcast_to(np.float32(0), (sizes.num_concepts,) * 2))
    beside = pytorch_layout.unused(expected)
    not_used: list[list[str]] = []
    for module, state in enumerate(checkpoint.states):
        used = expected[module]
        for name in used:
            _check_values(checkpoint, module, name, checkpoint.tensor(module, name, used[name].ndim))
        for name, tensor in state.items():
            known = used.get(name, beside[module].get(name))
            where = checkpoint.where(module, name)
            if known is None:
                raise InputError(f"{where} {tensor.shape} is not known; expected {', '.join(used) or 'nothing'}")
            if tensor.shape != known.shape:
                raise InputError(f"{where} is {tensor.shape}; expected {known.shape}")
            original = pytorch_layout.copied(module, name)
            if original in state and not np.array_equal(tensor, state[original]):
                raise InputError(f"{where} differs from {original}; expected the same tensor")
        not_used.append([name for name in state if name not in used])
    states = [{name: tensor.astype(np.float32) for name, tensor in state.items()} for state in checkpoint.states]
    return pytorch_layout.to_arrays(states, like), not_used


def _check_values(checkpoint: Checkpoint, module: int, name: str, tensor: np.ndarray) -> None:
    if tensor.dtype.kind != "f" or not np.isfinite(tensor).all():
        found = tensor.dtype if tensor.dtype.kind != "f" else "not finite"
        raise InputError(f"{checkpoint.where(module, name)} is {found}; expected finite floating-point numbers")


def write_workdir(
    directory: pathlib.Path,
    config: Config,
    language: Language,
    arrays: dict[str, np.ndarray],
    checkpoint: Checkpoint,
) -> None:
    """Writes all that a run would have left, its best and latest epoch this one."""
    language.save(directory)
    config_lib.save(config, directory / "config.json")
    variables = jax.tree.map(jnp.asarray, pytorch_layout.unflatten(arrays))
    _, optimizer = training_parts.schedule_and_optimizer(config, steps_per_epoch=1)
    progress = checkpoint.progress
    state = TrainState(
        step=jnp.asarray(progress.best_step, jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        key=jax.random.key(config.seed),
    )
    checkpoints = Checkpoints(directory / "checkpoints")
    try:
        checkpoints.save(state, progress, progress.best_rsum)
    finally:
        checkpoints.close()
