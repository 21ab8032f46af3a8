"""A checkpoint of CVSE's PyTorch program, as it was read: its state dicts and the sizes that they imply."""

import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from mhcvse_jax.errors import InputError
from mhcvse_jax.files.torch_file import read_torch_file
from mhcvse_jax.training.checkpoint import Progress
from mhcvse_jax.weights.pytorch_layout import (
    FUSION,
    GCN,
    IMAGE,
    IMAGE_CONSENSUS,
    IMAGE_POOLING,
    MODULES,
    SELF_ATTENTIONS,
    TEXT,
    TEXT_POOLING,
    StateDicts,
)


class Checkpoint(NamedTuple):
    """A checkpoint as it was read."""

    path: pathlib.Path
    states: StateDicts
    options: dict[str, Any]  # the attributes of `opt`
    progress: Progress

    def tensor(self, module: int, name: str, num_axes: int) -> np.ndarray:
        """Returns a tensor that must be there; raises InputError if it is missing or has another number of axes."""
        state = self.states[module]
        if name not in state:
            raise InputError(f"{self.where(module, name)} is missing; found {', '.join(state) or 'nothing'}")
        if state[name].ndim != num_axes:
            raise InputError(f"{self.where(module, name)} is {state[name].shape}; expected {num_axes} axes")
        return state[name]

    def where(self, module: int, name: str) -> str:
        """Returns the words that name a tensor in a message."""
        return f"{self.path}: model[{module}] ({MODULES[module]}) {name}"


def read_checkpoint(path: pathlib.Path) -> Checkpoint:
    """Returns what the file holds, without `module.` and the prefixes of self-attentions.

    Raises:
      InputError: the file cannot be read, or is not a checkpoint of CVSE's program.
    """
    held = read_torch_file(path)
    if not isinstance(held, dict) or "model" not in held:
        found = f"keys {', '.join(map(str, held))}"[:200] if isinstance(held, dict) else f"a {type(held).__name__}"
        raise InputError(f"{path}: holds {found}; expected a checkpoint with model, opt, epoch, best_rsum, Eiters")
    states = held["model"]
    num_modules = len(states) if isinstance(states, list | tuple) else type(states).__name__
    if num_modules not in (FUSION + 1, len(MODULES)):
        raise InputError(f"{path}: model holds {num_modules}; expected a list of 8 state dicts, 10 for an MH-CVSE")
    for module, state in enumerate(states):
        if not isinstance(state, dict) or not all(
            isinstance(name, str) and isinstance(tensor, np.ndarray) for name, tensor in state.items()
        ):
            raise InputError(f"{path}: model[{module}] is not a state dict; expected tensors by name")
    states = [_without_prefix(state, "module.") for state in states]
    for module in SELF_ATTENTIONS[: len(states) - len(MODULES) + len(SELF_ATTENTIONS)]:
        name = next((name for name in states[module] if name.endswith("in_proj_weight")), "in_proj_weight")
        states[module] = _without_prefix(states[module], name.removesuffix("in_proj_weight"))
    options = held.get("opt")
    options = options if isinstance(options, dict) else {}
    try:
        progress = Progress(
            best_rsum=float(held.get("best_rsum", 0.0)),
            best_step=max(int(held.get("Eiters", 0)), 0),
            epochs_done=max(int(held.get("epoch", 0)), 0),
        )
        if progress.best_step > np.iinfo(np.int32).max:
            raise ValueError(f"Eiters is {progress.best_step}")
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: epoch, best_rsum and Eiters must be numbers ({error})") from error
    return Checkpoint(path, states, options, progress)


def _without_prefix(state: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    if not all(name.startswith(prefix) for name in state):
        return state
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


class Sizes(NamedTuple):
    """The model's sizes, from the shapes of its tensors."""

    feature_dim: int
    num_regions: int | None  # None where any number will do
    embedding_dim: int
    vocabulary_size: int
    word_dim: int
    num_concepts: int
    concept_dim: int
    pooling: str
    fusion: str
    has_attention: bool


def read_sizes(checkpoint: Checkpoint) -> Sizes:
    """Returns the sizes, each from one tensor; the import checks all other tensors against them.

    Raises:
      InputError: a tensor that gives a size is missing, or belongs to a model that is not supported.
    """
    states = checkpoint.states
    for name in ("fc.weight_g", "fc.weight_v"):
        if name in states[IMAGE]:
            raise InputError(
                f"{checkpoint.where(IMAGE, name)}: weight_norm is not supported; expected precomp_enc_type basic"
            )
    embedding_dim, feature_dim = checkpoint.tensor(IMAGE, "fc.weight", 2).shape
    vocabulary_size, word_dim = checkpoint.tensor(TEXT, "embed.weight", 2).shape
    _check_gru(checkpoint)
    num_regions = None
    pooling = "attention" if states[IMAGE_POOLING] or states[TEXT_POOLING] else "mean"
    if pooling == "attention":
        num_regions = len(checkpoint.tensor(IMAGE_POOLING, "embedding_1.1.running_mean", 1))
    checkpoint.tensor(IMAGE_CONSENSUS, "embedding_1.1.running_mean", 1)
    fusion = "fixed_sum"
    if states[FUSION]:
        shape = checkpoint.tensor(FUSION, "joint_emb_v.weight", 2).shape
        fusions = {
            (embedding_dim, 2 * embedding_dim): "concat",
            (1, embedding_dim): "adap_sum",
            (2 * embedding_dim, 2 * embedding_dim): "weight_sum",
        }
        if shape not in fusions:
            expected = " or ".join(f"{shape} ({name})" for shape, name in fusions.items())
            raise InputError(f"{checkpoint.where(FUSION, 'joint_emb_v.weight')} is {shape}; expected {expected}")
        fusion = fusions[shape]
    return Sizes(
        feature_dim=feature_dim,
        num_regions=num_regions,
        embedding_dim=embedding_dim,
        vocabulary_size=vocabulary_size,
        word_dim=word_dim,
        num_concepts=len(checkpoint.tensor(GCN, "adj_all", 2)),
        concept_dim=len(checkpoint.tensor(GCN, "gc1.weight", 2)),
        pooling=pooling,
        fusion=fusion,
        has_attention=len(states) > FUSION + 1,
    )


def _check_gru(checkpoint: Checkpoint) -> None:
    """Raises InputError unless the recurrent network is a bidirectional GRU of one layer."""
    gates, state_dim = checkpoint.tensor(TEXT, "rnn.weight_hh_l0", 2).shape
    found = None
    if gates != 3 * state_dim:
        found = {4 * state_dim: "an LSTM", state_dim: "a plain RNN"}.get(
            gates, f"of {gates} rows and {state_dim} units"
        )
    elif "rnn.weight_ih_l0_reverse" not in checkpoint.states[TEXT]:
        found = "of one direction"
    elif any(re.fullmatch(r"rnn\.weight_ih_l[1-9]\d*", name) for name in checkpoint.states[TEXT]):
        found = "of several layers"
    if found:
        raise InputError(f"{checkpoint.where(TEXT, 'rnn')} is {found}, not supported; expected a Bi-GRU of one layer")
