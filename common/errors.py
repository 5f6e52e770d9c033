"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user can put right: a flag, a file, an environment.

    The message is one line that names the flag or file at fault and the next
    step. Scripts print it without a traceback and exit with status 1.
    """
