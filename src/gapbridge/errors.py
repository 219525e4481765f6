"""The errors a user can meet. Each message is one line: what is wrong, where, and what to do."""


class GapbridgeError(Exception):
    """Base of every expected error; the command line prints its message and exits with status 1."""


class InputError(GapbridgeError):
    """The user's files, params or arguments are wrong."""


class ArtifactError(GapbridgeError):
    """A file that a stage wrote is missing, damaged, or belongs to another encoder, model or format."""


class TrainingError(GapbridgeError):
    """Training cannot go on, for example because the loss is not a number."""
