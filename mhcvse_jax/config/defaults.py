"""Every configuration key, once, with its unit.

A file in `configs/` starts from `base()` and says only what differs. `base()` is MH-CVSE as its paper
(arXiv:2412.19184) has it on Flickr30k, and CVSE (ECCV 2020) where the paper is silent.
"""

from typing import Any, TypeAlias

from ml_collections import ConfigDict

from mhcvse_jax import models

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
