"""The program as its users start it: real processes on the built-in data set, made tiny."""

import functools
import gc
import importlib.metadata
import json
import os
import pathlib
import select
import signal
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parent.parent
TINY = (
    *("data.scenes.num_train=60", "data.scenes.num_dev=20", "data.scenes.num_test=20"),
    *("data.scenes.num_regions=5", "data.scenes.feature_dim=16", "data.scenes.image_size=48"),
    *("concepts.num=10", "concepts.vector_dim=13", "batch_size=16", "eval.batch_size=32", "num_epochs=2"),
    *("model.embedding_dim=16", "model.num_heads=2", "model.word_dim=8", "data.caption_lengths=(32,)"),
    *("model.dropout_rate=0.3", "model.consensus_norm=batch"),
    *("log.matches=2", "log.every_steps=5", "log.report=False"),
)

LIGHT = ("model.name=vsepp", "model.num_heads=0")  # compiles in half the time, where the model is not the point


def xla_flags(num_devices):
    """So many devices out of one CPU; compiled in a sixth of the time, for what is so small runs no slower."""
    flags = f"--xla_force_host_platform_device_count={num_devices} --xla_backend_optimization_level=0"
    flags += " --xla_cpu_parallel_codegen_split_count=1"  # one module a program, not 32
    if importlib.metadata.version("jaxlib").startswith("0.10."):  # later ones have no other emitters
        flags += " --xla_cpu_use_fusion_emitters=false"
    return flags


def collect_rarely():
    """What is imported stays: the garbage collector looks through it no more, nor often through what JAX keeps."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def command(module, *arguments, num_devices=1):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags(num_devices)}
    return {
        "args": [sys.executable, "-m", f"mhcvse_jax.{module}", *map(str, arguments)],
        "cwd": ROOT,
        "env": environment,
        "text": True,
        "stdin": subprocess.DEVNULL,
    }


class Started:
    """A command under way, started by the fork server of this process."""

    def __init__(self, module, *arguments, num_devices=1):
        whole = command(module, *arguments, num_devices=num_devices)
        self.args = whole["args"]
        self.returncode = None
        self._directory = tempfile.TemporaryDirectory()
        self._outputs = [pathlib.Path(self._directory.name, name) for name in ("stdout", "stderr")]
        self.pid = ask_server(
            module=self.args[2],
            arguments=self.args[3:],
            environment=whole["env"],
            stdout=str(self._outputs[0]),
            stderr=str(self._outputs[1]),
        )
        self._ends = os.pidfd_open(self.pid)

    def poll(self, seconds=0.0):
        """The exit code, of one that ends within so many seconds; else None."""
        if self.returncode is None and select.select([self._ends], [], [], seconds)[0]:
            self.returncode = ask_server(ended=self.pid)
            os.close(self._ends)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=600):
        """What it printed, to standard output and error, once it has ended."""
        assert self.poll(timeout) is not None, f"{self.args[2]} has not ended in {timeout} seconds"
        if self._directory:
            self._printed = [output.read_text() for output in self._outputs]
            self._directory.cleanup()
            self._directory = None
        return self._printed


def run(module, *arguments, num_devices=1):
    """The command, started by the fork server of this process and waited for."""
    started = Started(module, *arguments, num_devices=num_devices)
    printed = started.communicate()
    return subprocess.CompletedProcess(started.args, started.returncode, *printed)


def ask_server(**request):
    server = fork_server()
    print(json.dumps(request), file=server.stdin, flush=True)
    return int(server.stdout.readline())


@functools.cache
def fork_server():
    environment = command("fork_server")["env"]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fork_server"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def stop_fork_server():
    """Ends this process's fork server, if it has one."""
    if fork_server.cache_info().currsize:
        with fork_server():
            pass


def run_by_itself(module, *arguments, num_devices=1):
    """The command as a user's shell starts it, imports and all."""
    return subprocess.run(**command(module, *arguments, num_devices=num_devices), capture_output=True, timeout=600)


def tiny(workdir, *more):
    return ("--config", "configs/demo.py", "--workdir", workdir, *(f"--config.{value}" for value in (*TINY, *more)))


def train_lines(workdir):
    found = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "examples_per_second"} for line in found]
