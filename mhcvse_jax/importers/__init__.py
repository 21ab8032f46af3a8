"""The formats of region features that are in circulation, for `mhcvse import-features`.

A format is an `importer.Importer`. To add one, add a class, in the file of a similar one or its own, and a line in
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
