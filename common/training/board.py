"""TensorBoard's curves of one training."""

import contextlib
import time
from pathlib import Path

from common.errors import UserError
from common.files.names import task_name


def log_name(settings):
    """The folder of a new training: td3_Pendulum-v1_seed2_20260131-235959."""
    task = f"{settings.algorithm.lower()}_{task_name(settings.env_id, settings.preset)}"
    return f"{task}_seed{settings.seed}_{time.strftime('%Y%m%d-%H%M%S')}"


@contextlib.contextmanager
def board(folder, name):
    """A block whose function write(step, measured) adds numbers, a dict by name, at a step.

    They go into folder/name; where `folder` is None, nowhere. Where the disk is full, a line says
    so, once, and the rest is not written.

    Raises:
        UserError: the folder cannot be written.
    """
    if folder is None:
        yield lambda step, measured: None
        return
    import tensorflow as tf  # late: what serves the scripts need not import it

    try:
        writer = tf.summary.create_file_writer(str(Path(folder) / name))
    except tf.errors.OpError as error:
        raise UserError(
            f"--tensorboard {folder}: cannot be written; free the disk or choose another folder"
        ) from error
    failed = []

    @contextlib.contextmanager
    def tolerant():
        try:
            yield
        except tf.errors.OpError as error:
            if not failed:
                print(f"--tensorboard {folder}: cannot be written any more, perhaps the disk is "
                      "full: no further curves.", flush=True)
            failed.append(error)

    def write(step, measured):
        if not failed:
            with tolerant(), writer.as_default(step):
                for name, value in measured.items():
                    tf.summary.scalar(name, value)

    try:
        yield write
    finally:
        with tolerant():
            writer.close()
