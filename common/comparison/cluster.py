"""The runs of a comparison on a Ray cluster."""

import asyncio
import contextlib
import shutil
import signal
import tempfile
from pathlib import Path

from common.comparison import runs
from common.errors import UserError
from common.files.names import ROOT
from common.files.whole import write_atomically

_NOT_NEEDED = ["/.git", "/.venv", "/runs", "/image", "/model", "/docs", "/tests"]
_PATIENCE = 30.0  # seconds that a stopped run has for removing its files


@contextlib.contextmanager
def on_ray(address=None):
    """A block with a function that executes a run, as runs.execute() does, somewhere on a cluster.

    Each run has a core. Ray places them, and repeats those of lost nodes. What they have done is
    known when they have finished; a run that is stopped begins anew.

    Args:
        address: of the cluster, such as "192.168.0.1:6379"; "auto" finds the one that this
            machine is a node of; None starts one on this machine alone.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "--ray needs a package that is not installed: pip install -r requirements-cluster.txt"
        ) from error
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address, runtime_env={"working_dir": str(ROOT), "excludes": _NOT_NEEDED},
                 log_to_driver=False, logging_level="ERROR")
    except ConnectionError as error:
        raise UserError(
            f"--ray {address}: no cluster answers there; start it with ray start --head"
        ) from error
    signal.signal(signal.SIGTERM, handler)  # Ray has set its own
    # max_retries: how often Ray repeats a run whose node or process is gone.
    remote = ray.remote(num_cpus=1, max_retries=2)(_execute_there)

    async def execute(run, folder, note):
        there = remote.remote(run)
        try:
            measured, contents = await there
        except asyncio.CancelledError:
            ray.cancel(there)  # a KeyboardInterrupt there, which ends the training
            with contextlib.suppress(Exception):
                await asyncio.wait_for(there, _PATIENCE)
            raise
        except Exception as error:  # there, the cause is ours
            raise getattr(error, "cause", None) or error from None
        for name, content in contents.items():
            write_atomically(folder / name, lambda file, content=content: file.write(content))
        return measured

    try:
        yield execute
    finally:
        ray.shutdown()


def _execute_there(run):
    """On a node of a cluster: (what it has measured, dict from file name to content)."""
    folder = Path(tempfile.mkdtemp(prefix="run-"))
    try:
        measured = asyncio.run(runs.execute(run, folder, threads=1))
        kept = [*folder.glob("model/*/weights.npz"), *folder.glob("image/*.png")]
        kept.append(folder / "log.txt")
        return measured, {str(path.relative_to(folder)): path.read_bytes() for path in kept}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
