"""A workdir's best checkpoint in the format of PyTorch's CVSE."""

import argparse
import json
import os
import pathlib
from typing import Any

import numpy as np

from mhcvse_jax import config as config_lib
from mhcvse_jax import models
from mhcvse_jax.config import Config
from mhcvse_jax.data.dataset import Language
from mhcvse_jax.errors import InputError
from mhcvse_jax.experiment import reading
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.files.torch_file import OpenDict, write_torch_file
from mhcvse_jax.weights import pytorch_layout
from mhcvse_jax.weights.pytorch_options import ALPHA, KEYS_OF_OPTIONS

ONLY = {
    "model.region_mlp_dim": 0,
    "model.consensus_norm": "batch",
    "model.train_concept_vectors": False,
    "model.graph_slope": 0.2,
    "model.consensus_temperature": 10.0,
    "model.label_temperature": 10.0,
}
"""What is fixed in the PyTorch program."""


def export(arguments: argparse.Namespace) -> None:
    """Writes the checkpoint, completely or not at all.

    Raises:
      InputError: the workdir has no best checkpoint, or one that the PyTorch program cannot hold.
    """
    workdir, out = arguments.workdir, arguments.out
    if out.exists():
        raise InputError(f"--out {out} exists; expected a new file")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: {out.parent} is not a directory; expected an existing one")
    config = config_lib.load(workdir / "config.json")
    for key, value in ONLY.items():
        if config_lib.lookup(config, key) != value:
            raise InputError(
                f"{workdir}: config.{key} is {config_lib.lookup(config, key)!r}, which the PyTorch program does not "
                f"have; expected {value!r}"
            )
    if "consensus_norm" not in models.keys(config.model.name) or config.model.pooling == "gpo":
        found = f"{config.model.name}, {config.model.pooling} pooling"
        raise InputError(f"{workdir} holds {found}; expected cvse or mhcvse, mean or attention pooling")
    for key, lacking, expected in (
        ("attention_input", "layer_norm", "'unit' or 'scaled'"),
        ("attention_start", "gate", "'random' or 'zero'"),
    ):
        if config.model.num_heads and config.model[key] == lacking:
            raise InputError(f"{workdir}: config.model.{key} is {lacking!r}; expected {expected}")
    exported = Experiment.of_workdir(workdir)
    language = exported.language
    variables, progress = exported.restore_best()
    arrays = {path: np.asarray(leaf) for path, leaf in pytorch_layout.flatten(variables).items()}
    adjacency = reading.adjacency(language.concepts, config.concepts)
    used = pytorch_layout.to_state_dicts(arrays, adjacency)
    states = [state | extra for state, extra in zip(used, pytorch_layout.unused(used), strict=True)]
    content = {
        "epoch": progress.epochs_done,
        "model": states,
        "best_rsum": float(progress.best_rsum),
        "opt": OpenDict(options(config, language, arrays)),
        "Eiters": progress.best_step,
    }
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        if arguments.files:
            arguments.files.mkdir(parents=True, exist_ok=True)
            write_files(arguments.files, language)
        write_torch_file(partial, content)
        partial.replace(out)
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be written ({error.strerror})") from error
    finally:
        partial.unlink(missing_ok=True)
    total = sum(tensor.size for state in used for tensor in state.values())
    print(f"{out}: {config.model.name}, {total:,} numbers used, in {len(states)} state dicts")
    in_the_program = {"eval.consensus_weight": config_lib.cvse().eval.consensus_weight}
    if config.model.fusion == "fixed_sum":
        in_the_program["model.fixed_instance_weight"] = ALPHA[config.eval.label_neighbours]
    for key, value in in_the_program.items():
        ours = config_lib.lookup(config, key)
        if ours != value:
            print(f"note: config.{key} is {ours}; the PyTorch program evaluates with {value}, a re-import with {ours}")
    if arguments.files:
        print(f"vocabulary, concepts and concept vectors in {arguments.files}")


def options(config: Config, language: Language, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns `opt`: by what the PyTorch program builds its model and reads its data."""
    name = config.eval.label_neighbours
    annotations = f"data/{name}_annotations/Concept_annotations_{name}/"
    feature_dim, dim = arrays["params/region_projection/kernel"].shape
    values = {ours: config_lib.lookup(config, key) for ours, key in KEYS_OF_OPTIONS.items()}
    return values | {
        "data_name": f"{name}_precomp",
        "data_path": "./Bottom_up_atten_feature/data",
        "vocab_path": "./vocab/",
        "orig_img_path": "./data/",
        "orig_data_name": name,
        "attribute_path": annotations,
        "concept_name": f"{annotations}category_concepts.json",
        "inp_name": f"{annotations}{name}_concepts_glove_word2vec.pkl",
        "adj_file": f"{annotations}{name}_adj_concepts.pkl",
        "resume": "",
        "workers": 4,
        "img_dim": feature_dim,
        "embed_size": dim,
        "word_dim": config.model.word_dim,
        "vocab_size": len(language.vocabulary),
        "num_attribute": len(language.concepts.words),
        "input_channel": language.concept_vectors.shape[1],
        "num_layers": 1,
        "bi_gru": True,
        "wemb_type": "random_init",
        "precomp_enc_type": "basic",
        "no_imgnorm": False,
        "no_txtnorm": False,
        "use_abs": False,
        "use_BatchNorm": True,
        "activation_type": "tanh",
        "norm_func_type": "sigmoid",
        "feature_fuse_type": "weight_sum" if config.model.fusion == "fixed_sum" else config.model.fusion,
        "measure": "cosine",
        "max_violation": config.loss.all_negatives_epochs < config.num_epochs,
        "learning_rate_MLGCN": config.optimizer.learning_rate * config.optimizer.gcn_rate_factor,
    }


def write_files(directory: pathlib.Path, language: Language) -> None:
    """Writes what a checkpoint does not hold and `import_pytorch` asks for."""
    language.vocabulary.save(directory / "vocab.json")
    words = {word: i for i, word in enumerate(language.concepts.words)}
    (directory / "category_concepts.json").write_text(json.dumps(words) + "\n", encoding="utf-8")
    np.save(directory / "concept_vectors.npy", language.concept_vectors, allow_pickle=False)
