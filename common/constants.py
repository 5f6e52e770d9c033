"""The constants at the top of a script, and the flags that their comments make of them.

    GAMMA = 0.9  # discount factor, in [0, 1]

Only the end of a comment means anything to the program: an interval of a number (`in [0, 1]`,
`in (0, inf)`, `in [0, 1)`) or the choices of a text (`in {gaussian, ou}`).
"""

import argparse
import ast
import contextlib
import inspect
import math
import re
from pathlib import Path

from common.errors import UserError, one_line

NO_BREAK = "\N{NO-BREAK SPACE}"
_SHORT = {"ENV_ID": "--env", "RANDOM_SEED": "--seed", "TRAIN_EPISODES": "--episodes",
          "TRAIN_STEPS": "--steps"}
_LIMITS = re.compile(r"\bin\s*[\[({][^\[\](){}]*[\])}]?[.,;]?$", re.IGNORECASE)  # or the attempt
_INTERVAL = re.compile(r"in ([\[(])([^,]+),([^,]+)([\])])")
_CHOICES = re.compile(r"in \{([^{},]+(?:,[^{},]+)*)\}")


class Constant:
    """One constant of a script, and the flag made of it.

    Args:
        name, value, comment: as the script has them. A value of None takes a text.
        optional: None, or what the flag takes and means without it, as ("DIR", "runs").
        line: of the script.

    Attributes:
        flag, flags: `--name`, and a list with, for what is True, `--no-name`, too.
        kind: int, float, bool or str, the type of its value and of any other.

    Raises:
        UserError: the comment seems to end in limits, but they are none for this kind.
    """

    def __init__(self, name, value, comment, optional=None, line=0):
        self.name, self.value, self.line = name, value, line
        self.kind = str if value is None else type(value)
        self.flag = _SHORT.get(name, "--" + name.lower().replace("_", "-"))
        self.flags = [self.flag] + ["--no-" + self.flag[2:]] * (value is True)
        found = _LIMITS.search(comment)
        self._limits = found[0] if found else ""
        self._lowest, self._highest, self._choices = -math.inf, math.inf, []
        interval, choices = _interval(self._limits), _CHOICES.fullmatch(self._limits)
        if interval and self.kind in (int, float):
            self._lowest, self._highest = interval
        elif choices and self.kind is str:
            self._choices = [choice.strip() for choice in choices[1].split(",")]
        elif self._limits:
            raise UserError(f"{name}'s comment ends in '{self._limits}': limits of a number are "
                            "in [0, 1] or in (0, inf), of a text in {a, b}")
        self._meaning, self._optional = comment.removesuffix(self._limits).rstrip(), optional

    def options(self):
        """What add_argument() is told; of a flag that is not used, nothing is left behind."""
        default = {False: "off", True: "on"}[self.value] if self.kind is bool else self.value
        ends = [self._limits, f"(default: {default})" if default is not None else ""]
        ends = [end.replace(" ", NO_BREAK) for end in ends if end]  # not broken over two lines
        text = " ".join([self._meaning, *ends]).replace("%", "%%")
        options = {"dest": self.name, "default": argparse.SUPPRESS, "help": text}
        if self.kind is bool:
            action = argparse.BooleanOptionalAction if self.value else "store_true"
            return options | {"action": action}
        # ENV_ID takes an ID, MODEL_DIR a DIR, NOISE a NOISE
        metavar = {int: "N", float: "X"}.get(self.kind, self.name.split("_")[-1])
        options |= {"type": self.value_of, "metavar": metavar}
        if self._optional:
            options |= {"nargs": "?", "metavar": self._optional[0], "const": self._optional[1]}
        return options

    def value_of(self, text, name=None):
        """The value that a text means; raises UserError, which names the flag, or `name`."""
        value, allowed = text, self._limits
        if self._choices:
            fits, allowed = text in self._choices, " or ".join(self._choices)
        elif self.kind is bool:
            fits, allowed = text in ("True", "False"), "True or False"
        elif self.kind is str:
            fits, allowed = text and "\0" not in text, "a name"
        else:
            value = _number(self.kind, text)
            fits = value is not None and self._lowest <= value <= self._highest
            if value is None:
                allowed = f"a {'whole' if self.kind is int else 'finite'} number {allowed}".rstrip()
            elif fits and self.kind is int and abs(value) >= 2**63:  # arrays count no further
                fits, allowed = False, "between -2**63 and 2**63"
        if not fits:
            got = one_line(text, 80) or repr(text)
            raise UserError(f"{name or self.flag} must be {allowed}, got {got}")
        return value

    def check(self, value, name):
        """Raise UserError, which begins with `name`, if the constant may not have the value."""
        self.value_of(value if type(value) is self.kind is str else repr(value), name)


def _interval(limits):
    """The lowest and highest number of an interval such as "in (0, 1]"; None if it is none."""
    found = _INTERVAL.fullmatch(limits)
    with contextlib.suppress(ValueError):  # no numbers
        if found:
            low, high = float(found[2]), float(found[3])
            return (low if found[1] == "[" else math.nextafter(low, math.inf),
                    high if found[4] == "]" else math.nextafter(high, -math.inf))
    return None


def _number(kind, text):
    """The text as a finite float or, if kind is int, a whole number (500000, 5e5); else None."""
    with contextlib.suppress(ValueError):  # 5e5 is not read so, nor are thousands of digits
        if kind is int:
            return int(text)
    with contextlib.suppress(ValueError):
        number = float(text)
        if math.isfinite(number) and kind(number) == number:
            return kind(number)
    return None


def options_of(agent_class, constants):
    """Those of the constants that an agent is made with, as keywords for its constructor."""
    parameters = inspect.signature(agent_class).parameters
    return {name: constants[name.upper()] for name in parameters if name.upper() in constants}


def read(path):
    """What a script says of itself, without running it.

    Constants are the assignments above its call of arguments.parse() with a comment on their line.

    Returns:
        (first line of its docstring, its ALG_NAME or None, list of Constant).

    Raises:
        UserError: a constant with a comment cannot be a flag, or has a value beyond its own
            limits; the message begins with file and line.
    """
    source = Path(path).read_bytes()
    lines, tree = source.splitlines(), ast.parse(source)
    algorithm, constants = None, []
    for node in tree.body:
        if "arguments.parse(" in ast.unparse(node):
            break
        if not isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            continue
        names = [name.id for name in ast.walk(node)
                 if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)]
        value = None
        if len(names) == 1 and not isinstance(node, ast.AugAssign):
            with contextlib.suppress(ValueError, TypeError):  # computed
                value = ast.literal_eval(node.value)
        if names == ["ALG_NAME"]:
            algorithm = value
        comment = lines[node.end_lineno - 1][node.end_col_offset :].decode().strip()
        if not comment.startswith("#") or not any(re.match("[A-Z][A-Z0-9_]*$", n) for n in names):
            continue
        try:
            if type(value) not in (int, float, bool, str):
                raise UserError(f"{' and '.join(names)} cannot be a flag, as the comment asks: "
                                "write one number, text, True or False, not computed, or put "
                                "the comment above the line")
            constants.append(Constant(names[0], value, comment.lstrip("# "), line=node.lineno))
            constants[-1].check(value, names[0])
        except UserError as error:
            raise UserError(f"{Path(path).name}, line {node.lineno}: {error}") from None
    return (ast.get_docstring(tree) or "").partition("\n")[0], algorithm, constants
