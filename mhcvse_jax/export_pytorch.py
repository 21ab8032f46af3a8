"""Writes a workdir's best checkpoint in the format of CVSE's PyTorch program: the reverse of `import-pytorch`.

    mhcvse export-pytorch runs/cvse_f30k --out model_best.pth.tar --files exported

The file reads with `torch.load(..., weights_only=True)`, and its eight state dicts load into the original's modules.
`opt` is an OrderedDict whose items are attributes too, because `weights_only=True` refuses a Namespace. It holds the
options from which that program builds its model; the paths to its own files have that program's defaults. Tensors that
the program holds but never uses are written as copies (fc1 to fc3), zeros (fc2_2, fc4, embedding_2_2, joint_att_emb,
the bias of embedding_3 in the consensus modules) and identities (adj_O_P, adj_O_M). PyTorch's GRU has two biases for
each of the gates r and z; the second is zero. An MH-CVSE's self-attentions are a ninth and a tenth state dict, and its
learned fusion is in the eighth: see `mhcvse import-pytorch --help`.

That program reads captions as Python's literals of their bytes. A model that was trained here on plain captions needs
plain captions there too.
"""

import pathlib
import sys
from collections.abc import Sequence

from mhcvse_jax.run import command_line


def main(argv: Sequence[str] | None = None, prog: str = "python -m mhcvse_jax.export_pytorch") -> int:
    """Returns the exit code: 0 done, 2 bad input, 75 stopped."""
    parser = command_line.parser(prog, __doc__)
    parser.add_argument("workdir", type=pathlib.Path, help="the workdir of a run or an import")
    parser.add_argument(
        "--out", required=True, type=pathlib.Path, metavar="FILE", help="the checkpoint; must not exist yet"
    )
    parser.add_argument(
        "--files",
        type=pathlib.Path,
        metavar="DIR",
        help="also write its companions: vocab.json, category_concepts.json, concept_vectors.npy",
    )
    arguments = command_line.parse(parser, argv)
    from mhcvse_jax.run.export_pytorch import export  # here, so that --help need not wait for JAX

    return command_line.run(lambda: export(arguments))


if __name__ == "__main__":
    sys.exit(main())
