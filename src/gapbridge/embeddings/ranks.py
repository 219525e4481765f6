"""The processes that torchrun starts for one piece of work: which one this is, and waiting for the others."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np

_PATIENCE = timedelta(days=7)  # of who is done first; torchrun ends it when another one fails


@dataclass(frozen=True)
class Ranks:
    """This process among those that share the work."""

    rank: int = 0
    count: int = 1

    def own(self, numbers: np.ndarray) -> np.ndarray:
        """Mask (n,) of the pieces of work, known by their numbers, that are this process's."""
        return numbers % self.count == self.rank

    def wait(self) -> None:
        """Return when all of them have called this."""
        if self.count > 1:
            import torch.distributed

            torch.distributed.barrier()


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks that torchrun names in the environment, connected meanwhile; one alone without torchrun.

    Each takes a GPU of its own, where there are any.
    """
    ranks = Ranks(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))
    if ranks.count == 1:
        yield ranks
        return
    import torch.distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    torch.distributed.init_process_group("gloo", timeout=_PATIENCE)
    try:
        yield ranks
    finally:
        torch.distributed.destroy_process_group()
