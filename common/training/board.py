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

    They go into folder/name; where `folder` is None, nowhere.

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
            f"--tensorboard {folder}: cannot be written ({error.message}); choose another folder"
        ) from error

    def write(step, measured):
        with writer.as_default(step):
            for name, value in measured.items():
                tf.summary.scalar(name, value)

    with contextlib.closing(writer):
        yield write
