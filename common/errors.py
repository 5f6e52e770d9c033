"""What is said to the person at the keyboard when something is wrong, always on one line."""

import os
from pathlib import Path

START = os.getcwd()  # an environment may change the folder, to find the files of its simulator


class UserError(Exception):
    """Something the user can put right: a flag, a file, an environment.

    The message is one line that names what is at fault and the next step. Scripts print it
    without a traceback and exit with status 1.
    """


def one_line(thing, limit=300, kind=False):
    """A path, a value or what an error says, as part of one line that any terminal shows.

    Args:
        thing: anything; of an OSError, the system's words are taken; a Path in the folder where
            the program started is told from there on.
        limit: how many characters are shown; longer ones lose their middle.
        kind: True: of an error of others, its class is named, too.
    """
    if isinstance(thing, Path) and thing.is_relative_to(START):
        thing = thing.relative_to(START)
    text = str(thing)
    if isinstance(thing, BaseException):
        name = type(thing).__name__
        text = (text if kind else getattr(thing, "strerror", None) or text) or name
        if kind and text != name and not isinstance(thing, UserError):
            text = f"{name}: {text}"
        text = " ".join(text.split())
    if len(text) > limit:
        text = f"{text[: limit // 2]}...{text[-limit // 4 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
