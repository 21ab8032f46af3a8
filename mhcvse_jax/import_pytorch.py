r"""Makes a workdir from a checkpoint of CVSE's PyTorch program, or of a PyTorch MH-CVSE.

    mhcvse import-pytorch model_best.pth.tar --vocab f30k_precomp_vocab.json \
        --concepts category_concepts.json --concept_embeddings f30k_concepts_glove_word2vec.pkl --out runs/cvse_pytorch
    mhcvse evaluate --workdir runs/cvse_pytorch --data_dir data/f30k_precomp
    mhcvse train --config cvse_f30k --config.start_from=runs/cvse_pytorch \
        --config.text.bytes_literal=True

The workdir's configuration evaluates as that program does: it reads captions as Python's literals of their bytes and
takes the first 5,000 captions of dev and test; the similarity is 0.95 of the fused and 0.05 of the consensus one; alpha
is 0.85 (Flickr30k) or 0.9 (COCO). That program always completes labels: `evaluate --protocol label_completion` does so.

Deviation: at test time that program looks for the lemmas of concepts among the lemmas of a caption's words, by
WordNet. Here, as in its training, words are compared as they stand. "dogs" then does not name the concept "dog",
so captions with such words get another label.

The checkpoint is a dict {epoch, model, best_rsum, opt, Eiters}; `model` is a list of eight state dicts: image encoder,
text encoder, attention pooling (visual, textual), consensus (visual, textual), concept GCN, fusion. A PyTorch
MH-CVSE has two more, [8] for regions and [9] for words, each the tensors of one nn.MultiheadAttention: in_proj_weight,
in_proj_bias, out_proj.weight, out_proj.bias, all under one prefix or none. If [2] and [3] are empty, pooling is the
mean. If [7] is empty, fusion is the fixed sum; if it holds joint_emb_v and joint_emb_t (a Linear each), their shapes
tell concat, adap_sum and weight_sum apart. No code in the file is run, and PyTorch is not needed.
"""

import pathlib
import sys
from collections.abc import Sequence

from mhcvse_jax.run import command_line
from mhcvse_jax.weights.pytorch_options import ALPHA


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.import_pytorch") -> int:
    """Returns the exit code: 0 done, 2 bad input, 75 stopped."""
    parser = command_line.parser(prog, __doc__)
    path = pathlib.Path
    parser.add_argument("checkpoint", type=path, help="model_best.pth.tar, as torch.save wrote it")
    parser.add_argument("--vocab", required=True, type=path, metavar="FILE", help="SCAN's JSON, or its pickle (.pkl)")
    parser.add_argument("--concepts", required=True, type=path, metavar="FILE", help="category_concepts.json")
    parser.add_argument(
        "--concept_embeddings", required=True, type=path, metavar="FILE", help="[concepts, 300] as .npy or .pkl"
    )
    parser.add_argument("--out", required=True, type=path, metavar="DIR", help="the workdir; must not exist yet")
    parser.add_argument("--data_dir", type=path, metavar="DIR", help="the data, kept in the workdir's configuration")
    parser.add_argument("--data_name", choices=sorted(ALPHA), help="the data set, if opt.data_name is missing or wrong")
    parser.add_argument(
        "--num_heads",
        type=command_line.positive,
        metavar="N",
        help="heads of an MH-CVSE (default: opt.num_heads, else 8)",
    )
    parser.add_argument(
        "--attention_input",
        choices=("unit", "scaled"),
        help="the input of an MH-CVSE's self-attention: unit vectors (default), or these times sqrt(D)",
    )
    parser.add_argument(
        "--attention_residual",
        action="store_true",
        default=None,
        help="the self-attention adds its input to its output",
    )
    parser.add_argument(
        "--seed",
        type=command_line.not_negative,
        default=0,
        metavar="N",
        help="the training's seed, which the checkpoint does not hold (default 0); `compare` averages checkpoints that "
        "differ only in it",
    )
    arguments = command_line.parse(parser, argv)
    from mhcvse_jax.run.import_pytorch import import_checkpoint  # here, so that --help need not wait for JAX

    return command_line.run(lambda: import_checkpoint(arguments))


if __name__ == "__main__":
    sys.exit(main())
