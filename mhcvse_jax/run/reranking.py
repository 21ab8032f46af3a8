"""An embedding model's best candidates, reordered by a model that scores pairs: recall and time, beside all pairs'."""

import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from mhcvse_jax.data import feature_source
from mhcvse_jax.data.dataset import Split
from mhcvse_jax.errors import InputError
from mhcvse_jax.evaluation import protocols, rerank, result_rows
from mhcvse_jax.evaluation.evaluation import Evaluation
from mhcvse_jax.experiment.assemble import Experiment
from mhcvse_jax.retrieval.pairs import PairScorer

TOP_K = 20  # candidates, where the command names no number


@dataclasses.dataclass(frozen=True)
class Reranking:
    """The second model, what it reads, and how many candidates it scores for each query."""

    first: Experiment
    second: Experiment
    scorer: PairScorer
    variables: Any  # of the second model
    split: Split  # with the second model's vocabulary
    folds: Sequence[int]
    top_k: int
    only: bool  # not all pairs beside it

    @classmethod
    def load(
        cls,
        first: Experiment,
        workdir: pathlib.Path,
        split: Split,
        directory: pathlib.Path,
        folds: Sequence[int],
        *,
        data_format: str | None = None,
        top_k: int = TOP_K,
        only: bool = False,
    ) -> "Reranking":
        """Returns what re-ranks a split, checked before anything is encoded.

        Args:
          first: the embedding model.
          workdir: the run whose model scores pairs.
          split: with the first model's vocabulary.
          directory: the data.
          folds: what recalls are asked for.
          data_format: the layout of the directory, if it is not that of the second model's run.
          top_k: candidates per query.
          only: whether to leave out the scores of all pairs.

        Raises:
          InputError: the first model scores pairs, the second does not, or it takes other captions of the split, has
            no checkpoint, or one for features of another width.
        """
        second = Experiment.of_workdir(workdir, data_format=data_format)
        if isinstance(first.encoder, PairScorer):
            raise InputError(f"--workdir {first.workdir} scores pairs itself; expected a model with embeddings")
        if not isinstance(second.encoder, PairScorer):
            name = second.config.model.name
            raise InputError(f"--rerank {workdir} holds {name}; expected a model that scores pairs")
        feature_source.check(directory, workdir)
        its_split = second.load_split(directory, split.name, folds)
        if its_split.num_captions != split.num_captions:
            raise InputError(
                f"--rerank {workdir} takes {its_split.num_captions:,} captions of {split.name}; expected "
                f"{split.num_captions:,}, as --workdir (config.eval.max_captions)"
            )
        variables, _ = second.restore_best(its_split.regions.shape[1:])
        return cls(first, second, second.encoder, variables, its_split, folds, top_k, only)

    def run(self, found: protocols.Found, tested: Evaluation, seconds: float) -> tuple[Evaluation, dict[str, Any]]:
        """Returns the re-ranked evaluation, and recalls and seconds of all ways; prints these.

        Seconds are of all folds together, with reading, encoding and compiling what was not compiled before.

        Args:
          found: what the first model's protocol ranks.
          tested: the evaluation of it.
          seconds: how long that took.
        """
        similarity = protocols.similarity_of(found, "fused", self.first.config.eval.consensus_weight)
        owner, name = self.split.image_of_caption, self.second.config.model.name

        def score(images, captions):
            return self.scorer.score_pairs(self.variables, self.split, images, captions)

        started = time.monotonic()
        ranks = rerank.reranked(similarity, score, owner, top_k=self.top_k, folds=self.folds)
        reranked = dataclasses.replace(tested, ranks={number: {"fused": each} for number, each in ranks.items()})
        ways = {"first": (tested, seconds), "reranked": (reranked, seconds + time.monotonic() - started)}
        if not self.only:
            started = time.monotonic()
            everything = self.second.test(self.scorer(self.variables, self.split), self.split, self.folds)
            ways["all_pairs"] = (everything, time.monotonic() - started)
        shown = {
            "first": self.first.config.model.name,
            "reranked": f"its top {self.top_k} by {name}",
            "all_pairs": f"all pairs by {name}",
        }
        rows = [
            row | {"embedding": f"{shown[way]}, {taken:.1f} s"}
            for way, (evaluation, taken) in ways.items()
            for row in evaluation.rows()
            if row["embedding"] == "fused"
        ]
        result_rows.show(rows)
        measured = {way: {"results": each.rows(), "seconds": round(taken, 1)} for way, (each, taken) in ways.items()}
        return reranked, {"workdir": str(self.second.workdir), "top_k": self.top_k, **measured}
