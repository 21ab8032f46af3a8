"""The formats of region features that researchers hold, for `mhcvse import-features`.

A format is an `importer.Importer`. Another one is a class, in a file with its like or in its own, and a line in
`IMPORTERS`.
"""

from mhcvse_jax.importers.folders import Milvlg, NpyFolder, Sgae
from mhcvse_jax.importers.hdf5 import ButdHdf5, VlpHdf5
from mhcvse_jax.importers.importer import Importer
from mhcvse_jax.importers.tsv import ButdTsv, LxmertTsv
from mhcvse_jax.importers.vinvl import VinvlTsv

_FORMATS = (ButdTsv, LxmertTsv, ButdHdf5, Milvlg, Sgae, VlpHdf5, VinvlTsv, NpyFolder)
IMPORTERS: dict[str, type[Importer]] = {importer.name: importer for importer in _FORMATS}
"""By the name that `--format` takes."""
