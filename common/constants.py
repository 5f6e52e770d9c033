"""The constants at the top of a script, and what their comments say of them.

    GAMMA = 0.9  # discount factor, in [0, 1]

Only the end of a comment means anything to the program: an interval of a number (`in [0, 1]`,
`in (0, inf)`, `in [0, 1)`) or a set of choices of a text (`in {gaussian, ou}`).
"""

import ast
import contextlib
import inspect
import io
import itertools
import math
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

from common.errors import UserError

_SHORT = {"ENV_ID": "--env", "RANDOM_SEED": "--seed", "TRAIN_EPISODES": "--episodes",
          "TRAIN_STEPS": "--steps"}
_NAME = re.compile("[A-Z][A-Z0-9_]*")
_LIMITS = re.compile(r"\bin\s*[\[({][^\[\](){}]*[\])}]?[.,;]?$", re.IGNORECASE)  # or the attempt
_INTERVAL = re.compile(r"in ([\[(])([^,]+),([^,]+)([\])])")
_CHOICES = re.compile(r"in \{(.+)\}")


@dataclass
class Constant:
    """One constant of a script, and the flag made of it.

    Attributes:
        flag, flags: `--name`, and a list with, for what is True, `--no-name`, too.
        limits: the end of the comment, "" if it sets none.

    Raises:
        ValueError: the comment seems to end in limits, but they are none for this kind.
    """

    name: str
    value: object
    written: str  # the value, as the script writes it
    comment: str
    line: int

    def __post_init__(self):
        self.kind = type(self.value)  # int, float, bool or str
        self.flag = _SHORT.get(self.name, "--" + self.name.lower().replace("_", "-"))
        self.flags = [self.flag] + ["--no-" + self.flag[2:]] * (self.value is True)
        found = _LIMITS.search(self.comment)
        self.limits = found[0] if found else ""
        self._interval, self._choices = ("[", -math.inf, math.inf, "]"), None
        interval, choices = _INTERVAL.fullmatch(self.limits), _CHOICES.fullmatch(self.limits)
        understood = not self.limits
        if interval and self.kind in (int, float):
            left, low, high, right = interval.groups()
            with contextlib.suppress(ValueError):  # no numbers
                self._interval = left, float(low), float(high), right
                understood = float(low) < float(high) or (low == high and left + right == "[]")
        elif choices and self.kind is str:
            self._choices = [choice.strip() for choice in choices[1].split(",")]
            understood = all(self._choices)
        if not understood:
            right = {str: "in {a, b}", bool: "for numbers and texts"}
            right = right.get(self.kind, "in [0, 1] or in (0, inf)")
            raise ValueError(f"{self.name}'s comment ends in '{self.limits}': limits are {right}")

    def checked(self, value, name, typed=False):
        """The value as one of this kind; `typed` if it is the text given to the flag.

        Raises:
            UserError: it is not allowed; the message begins with `name` and says what is.
        """
        try:
            return self._allowed(value, typed)
        except ValueError as error:
            raise UserError(f"{name} must be {error}, got {on_one_line(value)}") from None

    def _allowed(self, value, typed):
        if self.kind in (bool, str):
            if type(value) is self.kind and value != "" and value in (self._choices or [value]):
                return value
            names = self._choices or ["True or False" if self.kind is bool else "a name"]
            raise ValueError(" or ".join(names))
        try:
            number = _number(self.kind, value if typed else repr(value))
        except (ValueError, OverflowError):
            what = "a whole number" if self.kind is int else "a finite number"
            raise ValueError(f"{what} {self.limits}".rstrip()) from None
        left, low, high, right = self._interval
        above = number >= low if left == "[" else number > low
        below = number <= high if right == "]" else number < high
        if not (above and below):
            raise ValueError(self.limits)
        if self.kind is int and abs(number) >= 2**63:  # what arrays and files can count to
            raise ValueError("between -2**63 and 2**63")
        return number


def _number(kind, text):
    """The text as a finite float or, where kind is int, a whole number: 500000 or 5e5."""
    if kind is int:
        with contextlib.suppress(ValueError):  # 5e5, or more digits than Python reads
            return int(text)
    number = float(text)
    if not math.isfinite(number) or kind(number) != number:
        raise ValueError
    return kind(number)


def options_of(agent_class, constants):
    """Those of the constants that an agent is made with, as keywords for its constructor."""
    parameters = inspect.signature(agent_class).parameters
    return {name: constants[name.upper()] for name in parameters if name.upper() in constants}


def read(path, taken=()):
    """What a script says of itself, without running it.

    Constants are the assignments above its call of arguments.parse() with a comment on their line.

    Args:
        path: of the script.
        taken: flags that no constant may have.

    Returns:
        (first line of its docstring, its ALG_NAME or None, list of Constant).

    Raises:
        UserError: a constant with a comment cannot be a flag, or has a value beyond its own
            limits; the message begins with file and line.
    """
    with tokenize.open(path) as file:
        source = file.read()
    tree = ast.parse(source)
    above = itertools.takewhile(lambda node: "arguments.parse(" not in ast.unparse(node), tree.body)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string for token in tokens if token.type == tokenize.COMMENT}
    algorithm, constants, owners = None, [], dict.fromkeys(taken, "every script")
    for node in above:
        if not isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            continue
        comment = comments.get(node.end_lineno, "").lstrip("# ")
        names = [name.id for name in ast.walk(node)
                 if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)]
        literal = None
        if len(names) == 1 and not isinstance(node, ast.AugAssign):
            with contextlib.suppress(ValueError, TypeError):  # computed
                literal = ast.literal_eval(node.value)
        if names == ["ALG_NAME"]:
            algorithm = literal
        if not comment or not any(map(_NAME.fullmatch, names)):
            continue
        try:
            if type(literal) not in (int, float, bool, str):
                raise ValueError(f"{' and '.join(names)} cannot be a flag, as the comment asks: "
                                 "write one number, text, True or False, not computed, or put "
                                 "the comment above the line")
            text = literal if type(literal) is str else ast.get_source_segment(source, node.value)
            constants.append(Constant(names[0], literal, text, comment, node.lineno))
            for flag in constants[-1].flags:
                if flag in owners:
                    raise ValueError(f"{names[0]} would be {flag}, which {owners[flag]} has: "
                                     "choose another name")
                owners[flag] = names[0]
            constants[-1].checked(literal, names[0])
        except (ValueError, UserError) as error:
            raise UserError(f"{Path(path).name}, line {node.lineno}: {error}") from None
    return (ast.get_docstring(tree) or "").partition("\n")[0], algorithm, constants


def on_one_line(value):
    """The value as it was typed, in quotes if it is empty or has newlines, cut if it is long."""
    text = str(value)
    text = text if len(text) <= 80 else f"{text[:77]}..."
    return text if text.strip() and text.isprintable() else repr(text)
