"""A command of ours that also keeps what a test asks of one process: its id, and which pictures it read.

    python tests/recording.py -m mhcvse_jax.main ...

$SCARCE_MEMORY is the number of a process that finds a thousand bytes free.

Writes `$RECORD_DIR/process_N.pid` when it begins, and `process_N.json`, {kind of features and their number: pictures
read}, after each read.
"""

import collections
import json
import os
import pathlib
import runpy
import sys
import threading

from mhcvse_jax.data import regions, tfds
from mhcvse_jax.devices import memory

PROCESS = os.environ.get("MHCVSE_PROCESS_ID", "0")
RECORD = pathlib.Path(os.environ["RECORD_DIR"]) / f"process_{PROCESS}"
lock = threading.Lock()
read_of = collections.defaultdict(list)


def recorded(read):
    def read_and_record(self, images):
        with lock:
            read_of[f"{type(self).__name__} {self.shape[0]}"] += images.tolist()
            RECORD.with_suffix(".partial").write_text(json.dumps(read_of))
            RECORD.with_suffix(".partial").replace(RECORD.with_suffix(".json"))
        return read(self, images)

    return read_and_record


RECORD.with_suffix(".pid").write_text(str(os.getpid()))
regions.MappedRegions.read = recorded(regions.MappedRegions.read)
tfds.RecordRegions.read = recorded(tfds.RecordRegions.read)
if os.environ.get("SCARCE_MEMORY") == PROCESS:
    memory.free_on_host = lambda: 1000
_, flag, module, *arguments = sys.argv
assert flag == "-m"
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__", alter_sys=True)
