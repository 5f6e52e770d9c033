"""TensorBoard's curves of one training."""

import time
from pathlib import Path

from common.errors import UserError
from common.files import task_name


def log_name(settings):
    """The folder of a new training: td3_Pendulum-v1_seed2_20260131-235959."""
    task = f"{settings.algorithm.lower()}_{task_name(settings.env_id, settings.preset)}"
    return f"{task}_seed{settings.seed}_{time.strftime('%Y%m%d-%H%M%S')}"


class Board:
    """A writer of summaries into folder/name, as a `with` block; without a folder, of nothing.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, folder, name):
        self._writer = None
        if folder is None:
            return
        import tensorflow as tf  # late: what serves the scripts need not import it

        self._scalar = tf.summary.scalar
        try:
            self._writer = tf.summary.create_file_writer(str(Path(folder) / name))
        except tf.errors.OpError as error:
            raise UserError(
                f"--tensorboard {folder}: cannot be written ({error.message}); "
                "choose another folder"
            ) from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._writer is not None:
            self._writer.close()

    def write(self, step, measured):
        """Add numbers, a dict from name to value, at a step of the environment."""
        if self._writer is not None:
            with self._writer.as_default(step):
                for name, value in measured.items():
                    self._scalar(name, value)
