"""Every configuration key, in one place: its default, its meaning with its unit, its range, and who may change it.

A file in `configs/` starts from `base()` and says only what differs. `base()` is MH-CVSE as its paper
(arXiv:2412.19184) has it on Flickr30k, and CVSE (ECCV 2020) where the paper is silent. docs/configuration.md is made
from here: python -m mhcvse_jax.config.listing > docs/configuration.md
"""

from typing import Any, TypeAlias

from ml_collections import ConfigDict

from mhcvse_jax.config.declare import (
    FREE,
    SAME,
    Allowed,
    Key,
    at_least,
    below_one,
    more_than,
    number,
    one_of,
    rising,
    share,
    some_of,
    switch,
    text,
    three_shares,
    whole_numbers,
)

Config: TypeAlias = Any
"""A ConfigDict with the keys of `base()`; type checkers cannot see these."""

KEYS = {
    "seed": Key(0, "seed of parameters, dropout and the order of the batches", at_least(0), row=FREE),
    "batch_size": Key(128, "pairs in a step, over all devices", more_than(0)),
    "num_epochs": Key(
        30, "epochs at most; an epoch is one pass over the captions, without an incomplete last batch", more_than(0)
    ),
    "patience_epochs": Key(5, "epochs without a better dev rsum before training stops", more_than(0)),
    "start_from": Key(
        "", "a workdir whose best parameters, words and concepts the run starts from; empty: from scratch", text()
    ),
    "steps_per_dispatch": Key(
        8,
        "steps that are dispatched at once if the features are on the devices; fewer if steps are slow",
        more_than(0),
        resume=FREE,
    ),
    "compute_dtype": Key(
        "float32", "type of the layers' arithmetic; parameters and losses are float32", one_of("float32", "bfloat16")
    ),
    "matmul_precision": Key(
        "default",
        "precision of float32 products; default means TF32 on recent GPUs",
        one_of("default", "tensorfloat32", "highest"),
    ),
    "data.format": Key(
        "scan",
        "what `data.dir` holds: SCAN's layout, tfds built from it, or the built-in scenes",
        one_of("scan", "tfds", "scenes"),
        resume=FREE,
    ),
    "data.dir": Key("", "the directory; empty, for scenes: `scenes/` in the workdir", text(), resume=FREE, row=FREE),
    "data.num_captions_per_image": Key(
        5, "captions per picture, unless {split}_caption_images.txt names the picture of each caption", more_than(0)
    ),
    "data.zero_regions_are_padding": Key(
        False,
        "whether a picture's trailing all-zero regions are left out, if there is no {split}_num_regions.npy",
        switch(),
    ),
    "data.caption_lengths": Key((16, 24, 32, 48, 64), "tokens; a batch is padded to the first that fits", rising(2)),
    "data.placement": Key(
        "auto",
        "where training features are kept: on the devices, on the host (read batch by batch), or auto: on the devices "
        "if they take at most half of what is free there",
        one_of("auto", "device", "host"),
        resume=FREE,
    ),
    "data.prefetch_batches": Key(8, "batches read ahead of the device", more_than(0), resume=FREE, row=FREE),
    "data.read_threads": Key(4, "threads that read", more_than(0), resume=FREE, row=FREE),
    "data.scenes.num_train": Key(3000, "training pictures of the built-in data set", more_than(0)),
    "data.scenes.num_dev": Key(200, "dev pictures", more_than(0)),
    "data.scenes.num_test": Key(500, "test pictures", more_than(0)),
    "data.scenes.num_regions": Key(12, "regions of a picture", more_than(0)),
    "data.scenes.feature_dim": Key(256, "features of a region", more_than(0)),
    "data.scenes.image_size": Key(112, "pixels of a side", more_than(0)),
    "data.scenes.twin_share": Key(0.2, "chance that two pictures share their objects, not their relations", share()),
    "data.scenes.seed": Key(0, "another seed is another data set", at_least(0)),
    "text.vocabulary_path": Key("", "SCAN's {name}_vocab.json; empty: made from train and dev captions", text()),
    "text.min_count": Key(4, "occurrences that a token needs to be in the vocabulary", more_than(0)),
    "text.remove_stop_words": Key(True, "whether function words are left out of captions", switch(), start=SAME),
    "text.bytes_literal": Key(
        False, "captions as CVSE's program reads them: Python's b'...' with its marks", switch(), start=SAME
    ),
    "text.word_vectors_path": Key(
        "",
        "a GloVe or fastText text file, or glove: GloVe 6B of width 50, by the extra [glove]; empty: random vectors",
        text(),
    ),
    "concepts.num": Key(300, "concepts", more_than(0), start=SAME),
    "concepts.shares": Key((7, 2, 1), "proportions of objects, properties and motions", three_shares()),
    "concepts.words_path": Key("", "CVSE's category_concepts.json; empty: mined from the training captions", text()),
    "concepts.counts_path": Key("", "CVSE's pickle of counts that goes with it", text()),
    "concepts.vectors_path": Key(
        "", "GloVe text, glove as above, .npy or CVSE's pickle; empty: seeded unit vectors", text()
    ),
    "concepts.vector_dim": Key(300, "width of the concepts' vectors", more_than(0), start=SAME),
    "concepts.scale": Key(5.0, "s of f(P) = s^(P-u) - s^(-u)", more_than(1), start=SAME),
    "concepts.shift": Key(0.02, "u of f(P)", number(), start=SAME),
    "concepts.threshold": Key(0.3, "f(P) from which two concepts are neighbours", number(), start=SAME),
    "concepts.neighbour_weight": Key(
        0.25, "sum of the weights of a concept's neighbours; its own is 1", at_least(0), start=SAME
    ),
    "concepts.training_label": Key(
        "image", "a caption's label in training: its picture's, or that of its own words", one_of("image", "caption")
    ),
    "model.name": Key(
        "mhcvse",
        "a model reads only those of the keys below that are its attributes",
        one_of("mhcvse", "cvse", "vsepp", "scan", "cross_attention"),
        start=SAME,
    ),
    "model.embedding_dim": Key(1024, "D, width of the embeddings", more_than(0), start=SAME),
    "model.word_dim": Key(300, "E, width of the word vectors", more_than(0), start=SAME),
    "model.dropout_rate": Key(0.4, "dropout of word vectors and of attention pooling", share()),
    "model.region_mlp_dim": Key(
        0,
        "hidden width of an MLP that is added to the linear layer of the regions, as VSE∞ has; 0: none",
        at_least(0),
        start=SAME,
    ),
    "model.feature_dropout_rate": Key(
        0.0, "dropout of features, the same for all regions of a picture; embedding models only", below_one()
    ),
    "model.element_dropout_rate": Key(
        0.0,
        "share of regions and words left out of attention and pooling in training; embedding models only",
        below_one(),
    ),
    "model.gru": Key(
        "auto",
        "how the GRU is computed; auto: the best for the device; pallas: a kernel for GPUs that is not measured yet, "
        "slow on a CPU; all give the same result",
        one_of("auto", "plain", "scan", "packed", "pallas"),
    ),
    "model.num_heads": Key(8, "heads of self-attention; 0 leaves it out", at_least(0), start=SAME),
    "model.attention_input": Key(
        "scaled",
        "input of self-attention: unit vectors, these times sqrt(D), or layer-normalised ones",
        one_of("unit", "scaled", "layer_norm"),
        start=SAME,
    ),
    "model.attention_residual": Key(False, "adds the input of self-attention to its output", switch(), start=SAME),
    "model.attention_start": Key(
        "random",
        "start of self-attention; with a residual, zero (of the output projection) and gate (a learned factor) add "
        "nothing at first",
        one_of("random", "zero", "gate"),
        start=SAME,  # a gate is a parameter
    ),
    "model.attention_dropout_rate": Key(0.0, "dropout of attention weights", share()),
    "model.pooling": Key(
        "mean",
        "pooling of embedding models: mean, CVSE's attention, or gpo, VSE∞'s",
        one_of("mean", "attention", "gpo"),
        start=SAME,
    ),
    "model.gpo_dim": Key(32, "width of gpo's positional encoding and GRU", more_than(0), start=SAME),
    "model.gpo_temperature": Key(0.1, "divides gpo's scores before the softmax", more_than(0), start=SAME),
    "model.train_concept_vectors": Key(False, "whether the concepts' vectors are learnt", switch(), start=SAME),
    "model.graph_product": Key(
        "sparse",
        "both give the same result; dense is faster for small graphs on some devices",
        one_of("sparse", "dense"),
    ),
    "model.graph_slope": Key(0.2, "LeakyReLU's, between the two graph convolutions", number(), start=SAME),
    "model.consensus_norm": Key(
        "batch", "normalisation in the consensus modules", one_of("batch", "layer"), start=SAME
    ),
    "model.consensus_start": Key(
        "random",
        "start of the concepts' scores; zero: all concepts count alike at first",
        one_of("random", "zero"),
    ),
    "model.consensus_temperature": Key(10.0, "factor on concept scores before the softmax", more_than(0), start=SAME),
    "model.label_temperature": Key(10.0, "factor on concept labels before the softmax", more_than(0), start=SAME),
    "model.label_share": Key(0.35, "share of the label in a caption's concept distribution", share(), start=SAME),
    "model.fusion": Key(
        "weight_sum",
        "how the instance and the consensus embedding of a side are fused",
        one_of("concat", "adap_sum", "weight_sum", "fixed_sum"),
        start=SAME,
    ),
    "model.fixed_instance_weight": Key(0.85, "alpha of fixed_sum", share(), start=SAME),
    "model.fusion_start": Key(
        "random", "start of weight_sum's weights; fixed_sum: as fixed_sum weighs", one_of("random", "fixed_sum")
    ),
    "model.scan_direction": Key(
        "t2i", "t2i: words look at regions; i2t: regions at words", one_of("t2i", "i2t"), start=SAME
    ),
    "model.scan_pooling": Key("avg", "over the queries: LogSumExp or average", one_of("lse", "avg"), start=SAME),
    "model.scan_attention_temperature": Key(
        9.0, "lambda 1: factor on normalised cosines before the softmax", more_than(0), start=SAME
    ),
    "model.scan_lse_temperature": Key(6.0, "lambda 2: factor on cosines in LogSumExp", more_than(0), start=SAME),
    "model.cross_layers": Key(2, "layers of attention between the sides", more_than(0), start=SAME),
    "model.cross_levels": Key(
        ("fragment", "context", "global"),
        "levels of the score; any may be left out",
        some_of("fragment", "context", "global"),
        start=SAME,
    ),
    "model.cross_temperature": Key(
        9.0, "factor on cosines before the softmax, at the start; learned", more_than(0), start=SAME
    ),
    "model.mined_negatives": Key(
        2, "scored as pairs for each picture and caption in training; 0: all of the batch", at_least(0)
    ),
    "loss.margin": Key(0.2, "margin of the hinge, a cosine", at_least(0)),
    "loss.contrastive": Key(
        "hinge",
        "hinge: a pair leads its negatives by the margin; infonce: cross-entropy of a pair among its negatives, by a "
        "learned temperature",
        one_of("hinge", "infonce"),
    ),
    "loss.infonce_temperature": Key(0.05, "temperature of infonce, at the start", more_than(0)),
    "loss.negatives": Key(
        "soft",
        "negatives of the hinge. soft: every negative counts, by the softmax of its similarity; hardest: only the "
        "hardest, once all_negatives_epochs are over",
        one_of("soft", "hardest"),
    ),
    "loss.negative_temperature": Key(
        0.05,
        "temperature of soft negatives, a cosine: negatives that are less similar by much more than this do not count",
        more_than(0),
    ),
    "loss.reduction": Key("sum", "over the pairs of a batch", one_of("sum", "mean")),
    "loss.weighting": Key(
        "eq15",
        "eq15: lambda = w / (1 + exp(-L)); inverse has exp(+L); fixed: lambda = w",
        one_of("eq15", "inverse", "fixed"),
    ),
    "loss.fusion_weight": Key(
        3.0, "w of the hinge on the similarity that retrieval uses; terms that a model lacks are left out", at_least(0)
    ),
    "loss.instance_weight": Key(5.0, "w of the hinge on instance embeddings", at_least(0)),
    "loss.consensus_weight": Key(1.0, "w of the hinge on consensus embeddings", at_least(0)),
    "loss.kl_weight": Key(2.0, "w of the divergence of the two sides' concept distributions", at_least(0)),
    "loss.matching_weight": Key(1.0, "w of the matching loss of pair models", at_least(0)),
    "loss.mask_same_image": Key(True, "captions of one picture are not each other's negatives", switch()),
    "loss.similarity_block": Key(
        0, "queries whose similarities are held at once, for huge batches; 0: all, which is faster", at_least(0)
    ),
    "loss.all_negatives_epochs": Key(
        0.0,
        "with hardest negatives: epochs at the start in which all negatives are summed, not only the hardest",
        at_least(0, infinite=True),
    ),
    "optimizer.learning_rate": Key(2e-4, "peak learning rate", more_than(0)),
    "optimizer.warmup_epochs": Key(0.0, "epochs of linear warm-up from 0, once at the start", at_least(0)),
    "optimizer.schedule": Key(
        "cosine",
        "after the warm-up; step multiplies the rate by `step_factor` every `step_epochs`",
        one_of("cosine", "step"),
    ),
    "optimizer.cosine_cycles": Key(
        1, "1: one annealing over all epochs; more: equal cycles, each from the peak", more_than(0)
    ),
    "optimizer.final_rate_share": Key(0.0, "learning rate at the end of a cycle, as a share of the peak", share()),
    "optimizer.step_epochs": Key(25, "epochs between two steps of the rate", more_than(0)),
    "optimizer.step_factor": Key(
        0.1, "factor of a step of the rate", Allowed("more than 0, and at most 1", lambda value: 0 < value <= 1)
    ),
    "optimizer.gcn_rate_factor": Key(1.0, "factor on the graph convolutions' learning rate", more_than(0)),
    "optimizer.weight_decay": Key(0.0, "AdamW's, of matrices: a step takes this times the rate of each", at_least(0)),
    "optimizer.clip_norm": Key(2.0, "largest norm of the global gradient", more_than(0)),
    "optimizer.adam_b1": Key(0.9, "decay of Adam's mean", below_one()),
    "optimizer.adam_b2": Key(0.999, "decay of Adam's mean square", below_one()),
    "optimizer.adam_eps": Key(1e-8, "added to Adam's divisor", more_than(0)),
    "optimizer.nonfinite_steps": Key(
        "stop",
        "if a loss or gradient is not finite: stop the run, or skip the step's update",
        one_of("stop", "skip"),
        resume=FREE,
    ),
    "optimizer.nonfinite_limit": Key(
        10, "steps skipped in a run before it stops all the same", at_least(0), resume=FREE
    ),
    "eval.protocol": Key(
        "standard",
        "protocol of the test; CVSE's label_completion, inverted_softmax and csls are transductive; dev always uses "
        "standard",
        one_of("standard", "label_completion", "inverted_softmax", "csls", "qb_norm"),
        row=FREE,
    ),
    "eval.label_neighbours": Key(
        "f30k",
        "for label_completion: CVSE's six neighbours of a caption for Flickr30k, three for COCO",
        one_of("f30k", "coco"),
        row=FREE,
    ),
    "eval.hubness_temperature": Key(
        0.05,
        "temperature of inverted_softmax and qb_norm, a cosine: a higher one reduces hubs less",
        more_than(0),
        row=FREE,
    ),
    "eval.csls_neighbours": Key(
        10, "for csls: neighbours over which a candidate's mean is taken", more_than(0), row=FREE
    ),
    "eval.bank_captions": Key(
        10_000,
        "for qb_norm: about how many training captions the bank holds, with their pictures; 0: all",
        at_least(0),
        row=FREE,
    ),
    "eval.batch_size": Key(128, "pictures or captions encoded at once, over all devices", more_than(0), row=FREE),
    "eval.pair_images": Key(
        32, "for pair models: pictures in a block of pairs, over all devices", more_than(0), resume=FREE
    ),
    "eval.pair_captions": Key(64, "captions in such a block", more_than(0), resume=FREE),
    "eval.pair_resident_images": Key(
        1024, "pictures kept encoded on the devices at a time; captions stay in host memory", more_than(0), resume=FREE
    ),
    "eval.validation_captions": Key(0, "captions of dev that are used while training; 0: all", at_least(0)),
    "eval.consensus_weight": Key(0.0, "weight of the consensus similarity; the fused similarity has the rest", share()),
    "eval.max_captions": Key(
        0, "captions of dev and test that are used; CVSE's program uses the first 5,000; 0: all", at_least(0)
    ),
    "eval.test_split": Key("test", "split that is tested", text(), resume=FREE, row=FREE),
    "eval.folds": Key(
        (1,),
        "each is reported: 1 is the whole split, n the mean over n consecutive parts",
        whole_numbers(1),
        resume=FREE,
        row=FREE,
    ),
    "checkpoint.keep_best": Key(
        1, "best epochs kept, by dev rsum, besides the latest checkpoints", more_than(0), resume=FREE, row=FREE
    ),
    "checkpoint.keep_latest": Key(
        2,
        "newest checkpoints kept; the one before the latest is there in case that is damaged",
        more_than(0),
        resume=FREE,
        row=FREE,
    ),
    "checkpoint.every_minutes": Key(
        10.0,
        "minutes between two saves within an epoch, besides the one at its end",
        more_than(0),
        resume=FREE,
        row=FREE,
    ),
    "log.every_steps": Key(
        50, "steps after which logged values are fetched from the device", more_than(0), resume=FREE, row=FREE
    ),
    "log.collapse_steps": Key(
        300, "steps at the collapse value before a loss is reported as collapsed", more_than(0), resume=FREE, row=FREE
    ),
    "log.matches": Key(
        0,
        "test queries drawn with their matches at the end, if the pictures are known",
        at_least(0),
        resume=FREE,
        row=FREE,
    ),
    "log.report": Key(
        False, "whether the run ends by writing `report.html`, as `mhcvse report` does", switch(), resume=FREE, row=FREE
    ),
    "log.image_dir": Key(
        "", "the folder of the pictures, for the matches and the report", text(), resume=FREE, row=FREE
    ),
}
"""By dotted name, in the order in which they are listed."""

CHOICES = {name: key.allowed.choices for name, key in KEYS.items() if key.allowed.choices}
"""The values of those keys that choose between named ways."""


def base() -> Config:
    """Returns the configuration of the paper's Flickr30k run."""
    values: dict[str, Any] = {}
    for name, key in KEYS.items():
        *sections, last = name.split(".")
        section = values
        for one in sections:
            section = section.setdefault(one, {})
        section[last] = key.default
    return ConfigDict(values)


def mhcvse() -> Config:
    """Returns MH-CVSE in a form that learns well: where its paper leaves choices open, they were made on real pictures.

    Attention and fusion start as if they were absent: at random they scatter what the layers before them have aligned.
    All concepts count alike at the start: with random scores a few of them stand for every picture, through a softmax
    that passes hardly any gradient. In training a caption has the concepts of its own words, as it does at test time:
    with its picture's concepts the consensus is almost given away, and the fused embedding is worse than the instance
    embedding that it is made from.
    """
    config = base()
    config.concepts.training_label = "caption"
    config.model.attention_residual = True
    config.model.attention_start = "gate"
    config.model.fusion_start = "fixed_sum"
    config.model.consensus_norm = "layer"
    config.model.consensus_start = "zero"
    config.loss.kl_weight = 0.3
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
    config.loss.negatives = "hardest"
    config.loss.weighting = "fixed"
    config.loss.mask_same_image = False
    config.optimizer.schedule = "step"
    config.eval.consensus_weight = 0.05
    return config
