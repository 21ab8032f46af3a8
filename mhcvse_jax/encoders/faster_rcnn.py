"""The Faster R-CNN of bottom-up attention, with which SCAN's features were made: regions of 2,048 features.

Its weights (Visual Genome, Anderson et al. 2018) do not come with a package; `detection.weights` says which files are
read.
"""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mhcvse_jax.detection import pixels
from mhcvse_jax.encoders.encoder import Encoder, file_sha256
from mhcvse_jax.errors import InputError
from mhcvse_jax.precompute.regions import Regions

if TYPE_CHECKING:
    from mhcvse_jax.detection.faster_rcnn import Architecture, Detections


class FasterRCNNRegions(Encoder):
    """Regions are the detector's proposals that some class is surest of; classes and attributes from 0, best first."""

    name = "faster_rcnn"
    part_size = 4  # on a CPU one takes half a minute

    @classmethod
    def add_options(cls, options: Any) -> None:
        """Adds how many regions there are, and the precision."""
        options.add_argument(
            "--num_regions",
            choices=("36", "10_to_100"),
            default="36",
            help="regions per picture: 36, or 10 to 100, as many as score 0.2 or more (default %(default)s)",
        )
        options.add_argument(
            "--compute_dtype",
            choices=("float32", "bfloat16"),
            default="float32",
            help="type of the convolutions; bfloat16 is faster on accelerators (default %(default)s)",
        )

    def __init__(
        self,
        weights: pathlib.Path | None,
        *,
        num_regions: str = "36",
        compute_dtype: str = "float32",
        architecture: "Architecture | None" = None,
    ):
        """Reads the weights; `architecture` is that of bottom-up attention where None."""
        if weights is None:
            raise InputError(
                "faster_rcnn comes without weights; expected --weights FILE: bua-caffe-frcn-r101-k36.pth, "
                "faster_rcnn_from_caffe_attr.pkl or the pytorch_model.bin of frcnn-vg-finetuned"
            )
        import jax

        from mhcvse_jax.detection.faster_rcnn import VISUAL_GENOME, FasterRCNN
        from mhcvse_jax.detection.selection import CHOICES
        from mhcvse_jax.detection.weights import read_weights

        read = read_weights(weights, architecture or VISUAL_GENOME)
        self.weights_sha256 = file_sha256(weights / "pytorch_model.bin" if weights.is_dir() else weights)
        self.regions_width = read.architecture.features_dim
        self.max_regions = CHOICES[num_regions].most
        self._settings = {"num_regions": num_regions, "compute_dtype": compute_dtype}
        self._variables = jax.device_put(read.variables)
        model = FasterRCNN(read.architecture, CHOICES[num_regions], dtype=jax.numpy.dtype(compute_dtype))
        self._detect = jax.jit(model.apply)

    def settings(self) -> dict[str, Any]:
        return dict(self._settings)

    def encode(self, pictures: Sequence[np.ndarray]) -> list[Regions]:
        # All are handed over before the first is fetched: the device works while the next picture is scaled.
        detected = [self._detect(self._variables, *pixels.prepare(picture)) for picture in pictures]
        return [_regions(detections) for detections in detected]


def _regions(detections: "Detections") -> Regions:
    """Returns the rows that count, on the host."""
    found = {name: np.asarray(rows) for name, rows in detections._asdict().items() if rows is not None}
    num = found.pop("num")
    return Regions(**{name: rows[:num] for name, rows in found.items()})
