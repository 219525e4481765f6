"""What a run is planned for. Nothing heavy is imported here: the command line names the GPUs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU: about the memory that torch finds, and by the data sheet its bf16 products without sparsity.

    A data sheet's 80 or 141 GB are binary ones, of which the driver keeps some.
    """

    memory_gb: float
    tflops: float


GPUS = {
    "rtx4090": Gpu(25.0, 165.0),
    "l40s": Gpu(47.0, 362.0),
    "a100": Gpu(84.0, 312.0),
    "h100": Gpu(84.0, 989.0),
    "h200": Gpu(149.0, 989.0),
}


@dataclass(frozen=True)
class Hardware:
    """What a run is planned for, and what share of its speed training is taken to reach."""

    name: str
    count: int
    utilisation: float

    @property
    def gpu(self) -> Gpu:
        """What is known of its kind."""
        return GPUS[self.name]

    def hours(self, flops: float, slower: float = 1.0) -> float:
        """GPU hours, all GPUs together, for so many operations at a share `slower` of training's speed."""
        return flops / (self.gpu.tflops * 1e12 * self.utilisation * slower) / 3600
