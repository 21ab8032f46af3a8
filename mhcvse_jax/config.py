"""Every configuration key, once, with its unit; and how a command reads and overrides them.

A file in `configs/` starts from `base()` and says only what differs. `base()` is MH-CVSE as its paper
(arXiv:2412.19184) has it on Flickr30k, and CVSE (ECCV 2020) where the paper is silent.
"""

import difflib
import json
import pathlib
from collections.abc import Sequence
from typing import Any, TypeAlias

from absl import flags
from ml_collections import ConfigDict, config_flags

from mhcvse_jax import models
from mhcvse_jax.errors import InputError
from mhcvse_jax.models.cross_attention import LEVELS
from mhcvse_jax.workdir import whole_file

Config: TypeAlias = Any
"""A ConfigDict with the keys of `base()`; type checkers cannot see these."""

CHOICES = {
    "model.name": tuple(models.MODELS),
    "data.format": ("scan", "tfds", "scenes"),
    "data.placement": ("auto", "device", "host"),
    "concepts.training_label": ("image", "caption"),
    "model.attention_input": ("unit", "scaled", "layer_norm"),
    "model.gru": ("auto", "plain", "scan", "packed"),
    "model.pooling": ("mean", "attention", "gpo"),
    "model.graph_product": ("sparse", "dense"),
    "model.consensus_norm": ("batch", "layer"),
    "model.fusion": ("concat", "adap_sum", "weight_sum", "fixed_sum"),
    "model.scan_direction": ("t2i", "i2t"),
    "model.scan_pooling": ("lse", "avg"),
    "optimizer.nonfinite_steps": ("stop", "skip"),
    "loss.weighting": ("eq15", "inverse", "fixed"),
    "loss.reduction": ("sum", "mean"),
    "optimizer.schedule": ("cosine", "step"),
    "compute_dtype": ("float32", "bfloat16"),
    "matmul_precision": ("default", "tensorfloat32", "highest"),
    "eval.protocol": ("standard", "label_completion"),
    "eval.label_neighbours": ("f30k", "coco"),
}
"""The values that a key of text may have, for the keys that choose between named ways."""


def base() -> Config:
    """Returns the configuration of the paper's Flickr30k run."""
    config = _section()
    config.seed = 0  # of parameters, dropout and the order of the batches
    config.batch_size = 128  # pairs in a step, over all devices
    config.num_epochs = 30  # at most; an epoch shows each training caption once, but for less than a batch
    config.patience_epochs = 5  # epochs without a better dev rsum before training stops
    config.start_from = ""  # a workdir, its best parameters, words and concepts to begin with; random ones if empty
    config.steps_per_dispatch = 8  # that the host hands over at once, where the features are on the devices
    config.compute_dtype = "float32"  # of the layers' arithmetic; parameters and losses are float32
    config.matmul_precision = "default"  # of float32 products: "default" is TF32 on recent GPUs

    config.data = data = _section()
    data.format = "scan"  # of `dir`: "scan", SCAN's layout; "tfds", built from it; "scenes", made by the program
    data.dir = ""  # the directory; for "scenes" the workdir's `scenes/` if empty
    data.num_captions_per_image = 5
    data.caption_lengths = (16, 24, 32, 48, 64)  # tokens; a batch is padded to the first that fits
    data.placement = "auto"  # of training features: "device", in its memory; "host", read by batch; or where they fit
    data.prefetch_batches = 8  # read ahead of the device
    data.read_threads = 4

    data.scenes = scenes = _section()  # read only where format is "scenes"
    scenes.num_train = 3000  # pictures
    scenes.num_dev = 200
    scenes.num_test = 500
    scenes.num_regions = 12
    scenes.feature_dim = 256
    scenes.image_size = 112  # pixels
    scenes.twin_share = 0.2  # chance that two pictures share their objects, not their relations
    scenes.seed = 0

    config.text = text = _section()
    text.vocabulary_path = ""  # SCAN's {name}_vocab.json; made from train and dev captions if empty
    text.min_count = 4  # times that a token is seen before it enters the vocabulary
    text.remove_stop_words = True
    text.bytes_literal = False  # captions as CVSE's program reads them: Python's b'...' with its marks
    text.word_vectors_path = ""  # a GloVe or fastText text file; random vectors if empty

    config.concepts = concepts = _section()
    concepts.num = 300
    concepts.shares = (7, 2, 1)  # of objects, properties and motions
    concepts.words_path = ""  # CVSE's category_concepts.json, instead of mining the training captions
    concepts.counts_path = ""  # CVSE's pickle of counts that goes with it
    concepts.vectors_path = ""  # GloVe text, .npy or CVSE's pickle; seeded unit vectors if empty
    concepts.vector_dim = 300
    concepts.scale = 5.0  # s of f(P) = s^(P-u) - s^(-u)
    concepts.shift = 0.02  # u
    concepts.threshold = 0.3  # f(P) from which two concepts are neighbours
    concepts.neighbour_weight = 0.25  # sum of a concept's neighbours' weights; its own is 1
    concepts.training_label = "image"  # a caption's label in training: its picture's; "caption": its own words'

    config.model = model = _section()
    model.name = "mhcvse"  # a model reads only those of the keys below that are its attributes
    model.embedding_dim = 1024  # D
    model.word_dim = 300  # E
    model.dropout_rate = 0.4  # of word vectors and of attention pooling
    model.gru = "auto"  # how the GRU is computed: "plain", "scan", "packed", or the best for the device; all equal
    model.num_heads = 8  # 0 leaves self-attention out
    model.attention_input = "scaled"  # "unit", "scaled" by sqrt(D), or "layer_norm"
    model.attention_residual = False  # adds the input to what was attended
    model.attention_dropout_rate = 0.0  # of attention weights
    model.pooling = "mean"  # or CVSE's "attention", or "gpo", VSE∞'s: of embedding models
    model.gpo_dim = 32  # of gpo's positional encoding and GRU
    model.gpo_temperature = 0.1  # divides gpo's scores before the softmax
    model.train_concept_vectors = False
    model.graph_product = "sparse"  # or "dense": equal, faster for small graphs on some devices
    model.graph_slope = 0.2  # LeakyReLU's, between the two graph convolutions
    model.consensus_norm = "batch"  # in the consensus modules; or "layer"
    model.consensus_temperature = 10.0  # factor on concept scores before the softmax
    model.label_temperature = 10.0  # factor on concept labels before the softmax
    model.label_share = 0.35  # of the label in a caption's concept distribution
    model.fusion = "weight_sum"
    model.fixed_instance_weight = 0.85  # alpha of fixed_sum
    model.scan_direction = "t2i"  # words look at regions; "i2t": regions at words
    model.scan_pooling = "avg"  # over the queries; or "lse", LogSumExp
    model.scan_attention_temperature = 9.0  # lambda 1: factor on normalised cosines before the softmax
    model.scan_lse_temperature = 6.0  # lambda 2: factor on cosines in LogSumExp
    model.cross_layers = 2  # of attention between the sides
    model.cross_levels = ("fragment", "context", "global")  # of the score; any may be left out
    model.cross_temperature = 9.0  # factor on cosines before the softmax, at the start; learned
    model.mined_negatives = 2  # scored as pairs for each picture and caption in training; 0: all of the batch

    config.loss = loss = _section()
    loss.margin = 0.2  # cosine
    loss.reduction = "sum"  # over the pairs of a batch
    loss.weighting = "eq15"  # lambda = w / (1 + exp(-L)); "inverse" has exp(+L); "fixed" is w
    loss.fusion_weight = 3.0  # of the hinge on the similarity that retrieval uses; a model has those terms it can
    loss.instance_weight = 5.0
    loss.consensus_weight = 1.0
    loss.kl_weight = 2.0
    loss.matching_weight = 1.0
    loss.mask_same_image = True  # captions of one picture are not each other's negatives
    loss.similarity_block = 0  # queries whose similarities are held at once, for huge batches; 0: all, faster
    loss.all_negatives_epochs = 0.0  # first epochs in which all negatives count (of mined ones, all these)

    config.optimizer = optimizer = _section()
    optimizer.learning_rate = 2e-4  # peak
    optimizer.warmup_epochs = 0.0  # linear, from 0, once at the start
    optimizer.schedule = "cosine"  # after it; "step" multiplies the rate by a factor every so many epochs
    optimizer.cosine_cycles = 1  # 1: one annealing over all epochs; more: restarts, equal cycles
    optimizer.final_rate_share = 0.0  # of the peak, at the end of a cycle
    optimizer.step_epochs = 25  # of "step"
    optimizer.step_factor = 0.1
    optimizer.gcn_rate_factor = 1.0  # the graph convolutions' own rate, relative to the others'
    optimizer.clip_norm = 2.0  # of the global gradient
    optimizer.adam_b1 = 0.9
    optimizer.adam_b2 = 0.999
    optimizer.adam_eps = 1e-8
    optimizer.nonfinite_steps = "stop"  # the run where a loss or gradient is not finite; "skip": that step's update
    optimizer.nonfinite_limit = 10  # steps skipped in a run before it stops all the same

    config.eval = evaluation = _section()
    evaluation.protocol = "standard"  # or CVSE's "label_completion", which is transductive; dev: always "standard"
    evaluation.label_neighbours = "f30k"  # label_completion: six neighbours of a caption, CVSE's; "coco": its three
    evaluation.batch_size = 128  # pictures or captions encoded at once, over all devices
    evaluation.pair_images = 32  # of a pair model: pictures of a block of pairs on the device, over all devices
    evaluation.pair_captions = 64  # captions of a block
    evaluation.pair_resident_images = (
        1024  # pictures whose queries, keys, ... lie on the device at once; captions' in host memory
    )
    evaluation.validation_captions = 0  # of dev, while training; 0 takes all
    evaluation.consensus_weight = 0.0  # of the consensus similarity, beside 1 - it of the fused
    evaluation.max_captions = 0  # of dev and test; CVSE's program takes the first 5,000; 0 takes all
    evaluation.test_split = "test"
    evaluation.folds = (1,)  # each reported: 1 is the whole split, n the mean over n consecutive parts

    config.checkpoint = checkpoint = _section()
    checkpoint.keep_best = 1  # epochs kept by dev rsum, beside the latest
    checkpoint.keep_latest = 2  # the one before the latest is there for when that is damaged
    checkpoint.every_minutes = 10.0  # between two saves within an epoch, beside the one at its end

    config.log = log = _section()
    log.every_steps = 50  # how often logged values are fetched from the device
    log.collapse_steps = 300  # at the collapse value before a loss is reported as collapsed
    log.matches = 0  # test queries drawn with their matches at the end, where pictures are known
    log.image_dir = ""  # pictures by their file names, for the matches
    return config


def cvse() -> Config:
    """Returns the configuration of CVSE (ECCV 2020) on Flickr30k: what its program does otherwise than `base()`."""
    config = base()
    config.num_epochs = 50
    config.patience_epochs = 50  # it never stops early
    config.text.remove_stop_words = False
    config.model.name = "cvse"
    config.model.num_heads = 0
    config.model.pooling = "attention"
    config.model.fusion = "fixed_sum"
    config.loss.weighting = "fixed"
    config.loss.mask_same_image = False
    config.optimizer.schedule = "step"
    config.eval.consensus_weight = 0.05
    return config


def _section() -> Config:
    return ConfigDict()


def check(config: Config) -> None:
    """Raises InputError for the first value that no run could use, naming its key."""
    for key, choices in CHOICES.items():
        value = lookup(config, key)
        if value not in choices:
            raise InputError(f"config.{key} is {value!r}; expected one of {', '.join(map(repr, choices))}")
    positive = """batch_size steps_per_dispatch num_epochs patience_epochs data.num_captions_per_image
        data.prefetch_batches data.read_threads text.min_count concepts.num concepts.vector_dim
        model.embedding_dim model.word_dim
        optimizer.learning_rate optimizer.cosine_cycles optimizer.step_epochs optimizer.step_factor
        optimizer.gcn_rate_factor optimizer.clip_norm model.gpo_dim model.gpo_temperature model.cross_layers
        model.cross_temperature model.scan_attention_temperature model.scan_lse_temperature eval.batch_size
        eval.pair_images eval.pair_captions eval.pair_resident_images checkpoint.keep_best checkpoint.keep_latest
        checkpoint.every_minutes log.every_steps log.collapse_steps"""
    for key in positive.split():
        if not lookup(config, key) > 0:
            raise InputError(f"config.{key} is {lookup(config, key)}; expected more than 0")
    not_negative = """model.num_heads model.mined_negatives loss.margin loss.fusion_weight loss.instance_weight
        loss.consensus_weight loss.kl_weight loss.matching_weight loss.similarity_block loss.all_negatives_epochs
        optimizer.warmup_epochs optimizer.nonfinite_limit eval.max_captions eval.validation_captions log.matches seed"""
    for key in not_negative.split():
        if not lookup(config, key) >= 0:
            raise InputError(f"config.{key} is {lookup(config, key)}; expected 0 or more")
    parts = """model.dropout_rate model.attention_dropout_rate model.label_share model.fixed_instance_weight
        optimizer.final_rate_share optimizer.step_factor eval.consensus_weight data.scenes.twin_share"""
    for key in parts.split():
        if not 0 <= lookup(config, key) <= 1:
            raise InputError(f"config.{key} is {lookup(config, key)}; expected a share between 0 and 1")
    if config.loss.similarity_block and issubclass(models.MODELS[config.model.name], models.PairModel):
        raise InputError(
            f"config.loss.similarity_block is {config.loss.similarity_block}; expected 0, as {config.model.name} "
            "scores pairs"
        )
    if config.loss.similarity_block and config.batch_size % config.loss.similarity_block:
        raise InputError(
            f"config.loss.similarity_block is {config.loss.similarity_block}, which does not divide batch_size "
            f"{config.batch_size}"
        )
    heads, dim = config.model.num_heads, config.model.embedding_dim
    if heads and dim % heads:
        raise InputError(f"config.model.num_heads is {heads}, which does not divide model.embedding_dim {dim}")
    name, has = config.model.name, models.keys(config.model.name)
    if not heads and "cross_layers" in has:
        raise InputError(f"config.model.num_heads is 0; expected 1 or more for {name}")
    levels = config.model.cross_levels
    if not levels or any(level not in LEVELS or levels.count(level) > 1 for level in levels):
        raise InputError(
            f"config.model.cross_levels is {levels}; expected one or more of {', '.join(LEVELS)}, once each"
        )
    if heads and "num_heads" not in has:
        raise InputError(f"config.model.num_heads is {heads}; expected 0, as {name} has no heads")
    if "label_share" not in has and config.eval.protocol != "standard":
        raise InputError(
            f"config.eval.protocol is {config.eval.protocol!r}; expected 'standard', as {name} has no labels"
        )
    if "consensus_temperature" not in has and config.eval.consensus_weight:
        weight = config.eval.consensus_weight
        raise InputError(f"config.eval.consensus_weight is {weight}; expected 0, as {name} has no consensus")
    lengths = config.data.caption_lengths
    if not lengths or not _whole(lengths, 2) or sorted(set(lengths)) != list(lengths):
        raise InputError(f"config.data.caption_lengths is {lengths}; expected rising whole numbers of 2 or more")
    if not config.eval.folds or not _whole(config.eval.folds, 1):
        raise InputError(f"config.eval.folds is {config.eval.folds}; expected whole numbers of 1 or more")
    shares = config.concepts.shares
    if len(shares) != 3 or not _whole(shares, 0) or not any(shares):
        raise InputError(f"config.concepts.shares is {shares}; expected three whole numbers, not all 0")
    if not config.concepts.scale > 1:
        raise InputError(f"config.concepts.scale is {config.concepts.scale}; expected more than 1")
    if bool(config.concepts.words_path) != bool(config.concepts.counts_path):
        raise InputError("config.concepts.words_path and config.concepts.counts_path go together; one is empty")
    for key in ("text.vocabulary_path", "text.word_vectors_path", "concepts.words_path", "concepts.vectors_path"):
        if config.start_from and lookup(config, key):
            raise InputError(
                f"config.{key} is {lookup(config, key)}; expected none, as words and concepts are those of "
                f"config.start_from, {config.start_from}"
            )
    if config.optimizer.warmup_epochs >= config.num_epochs:
        raise InputError(
            f"config.optimizer.warmup_epochs is {config.optimizer.warmup_epochs}; "
            f"expected less than num_epochs {config.num_epochs}"
        )


def _whole(numbers: Sequence[Any], least: int) -> bool:
    return all(isinstance(number, int) and number >= least for number in numbers)


def lookup(config: Config, key: str) -> Any:
    """Returns the value of a dotted key, `model.num_heads` for example."""
    value = config
    for part in key.split("."):
        value = value[part]
    return value


def keys(config: Config, prefix: str = "") -> list[str]:
    """Returns all dotted keys of a configuration, in the order of their definition."""
    found = []
    for key, value in config.items():
        found += keys(value, f"{prefix}{key}.") if isinstance(value, ConfigDict) else [prefix + key]
    return found


def named() -> dict[str, pathlib.Path]:
    """Returns the configurations that come with the package, by name: `f30k` is configs/f30k.py."""
    return {path.stem: path for path in sorted((pathlib.Path(__file__).parent / "configs").glob("*.py"))}


def read(path: str, overrides: Sequence[str] = ()) -> Config:
    """Returns a configuration with `--config.key=value` overrides applied.

    Args:
      path: a Python file with a function `get_config()`, or one of `named()`.
      overrides: each `--config.some.key=value`, or `--config.some.key` followed by the value.

    Raises:
      InputError: the file is missing or fails; a key is unknown; a value has another type or is unusable.
    """
    path = str(named().get(path, path))
    if not pathlib.Path(path).is_file():
        raise InputError(f"--config {path}: no such file; expected one, or one of {', '.join(named())}")
    holder = flags.FlagValues()
    arguments = ["mhcvse_jax", f"--config={path}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=holder, sys_argv=arguments)
    try:
        rest = holder(arguments)[1:]
        config = _value(holder)
    except flags.IllegalFlagValueError as error:
        raise InputError(str(error).replace("flag ", "", 1)) from error
    except Exception as error:  # the file is the user's program: anything may fail in it
        raise InputError(_explain_override(overrides) or f"--config {path}: {type(error).__name__}: {error}") from error
    if not isinstance(config, ConfigDict):
        raise InputError(f"--config {path}: get_config() returned {config!r}; expected a configuration")
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}; expected --config.key=value")
    unknown = sorted(set(keys(config)) - set(keys(base())))
    if unknown:
        raise InputError(f"--config {path} sets config.{unknown[0]}, which does not exist{_nearest(unknown[0])}")
    check(config)
    return config.lock()


def _value(holder: flags.FlagValues) -> Config:
    return holder["config"].value


def _explain_override(overrides: Sequence[str]) -> str | None:
    """Returns what is wrong with the first override that names no key; None where all do."""
    known = set(keys(base()))
    for override in overrides:
        name = override.split("=", 1)[0].lstrip("-")
        key = name.removeprefix("config.")
        if name.startswith("config.") and key not in known:
            return f"config.{key} does not exist{_nearest(key)}"
        if override.startswith("-") and not name.startswith("config."):
            return f"unknown option {override!r}; overrides are written --config.key=value"
    return None


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, keys(base()), n=1, cutoff=0.5)
    return f"; the nearest key is config.{near[0]}" if near else ""


def save(config: Config, path: pathlib.Path) -> None:
    """Writes the resolved configuration as JSON, keys sorted."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n", encoding="utf-8")


def load(path: pathlib.Path) -> Config:
    """Returns the configuration that `save` wrote; a key that an earlier version did not have is as in `base()`.

    A new key of `base()` therefore stands for what was done before there was one.

    Raises:
      InputError: the file is missing or not JSON, lacks a whole section, or has a key that `base()` has not.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a workdir that a run has written")
    try:
        saved = ConfigDict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path} is not a configuration in JSON: {error}") from error
    config = base()
    unknown = sorted(set(keys(saved)) - set(keys(config)))
    if unknown:
        raise InputError(f"{path}: config.{unknown[0]} does not exist in this version of the program")
    for name, value in config.items():
        if isinstance(value, ConfigDict) and name not in saved:
            raise InputError(f"{path}: config.{name} is missing; expected what a run has written")
    for key in keys(saved):
        value = lookup(saved, key)
        parent, _, name = key.rpartition(".")
        target = lookup(config, parent) if parent else config
        target[name] = tuple(value) if isinstance(target[name], tuple) else value
    check(config)
    return config.lock()
