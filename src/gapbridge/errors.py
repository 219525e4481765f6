"""The errors a user can meet. Each message is one line: what is wrong, where, and what to do."""

import re

_SHOWN_CHARACTERS = 200
_POINTER = re.compile(r" \(Background on this error at: \S+\)")  # SQLAlchemy's, to a page of its own
_USER_IN_ADDRESS = re.compile(r"(?<=://)[^\s'\"]*@")


class GapbridgeError(Exception):
    """Base of every expected error; the command line prints its message and exits with status 1."""


class InputError(GapbridgeError):
    """The user's files, params or arguments are wrong."""


class ArtifactError(GapbridgeError):
    """A file that a stage wrote is missing, damaged, or belongs to another encoder, model or format."""


class TrainingError(GapbridgeError):
    """Training cannot go on, for example because the loss is not a number."""


def one_line(error: BaseException) -> str:
    """What another library's error says, on one line of bounded length; addresses in it lose user and password."""
    said = _USER_IN_ADDRESS.sub("…@", _POINTER.sub("", " ".join(str(error).split())))
    if len(said) > _SHOWN_CHARACTERS:
        said = said[:_SHOWN_CHARACTERS].rpartition(" ")[0] + " …"
    return said or type(error).__name__
