"""What a run is planned for. Nothing heavy is imported here: the command line names the GPUs."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU, by its maker's data sheet: memory, and bf16 products without sparsity."""

    memory_gb: int
    tflops: float


GPUS = {
    "rtx4090": Gpu(24, 165.0),
    "l40s": Gpu(48, 362.0),
    "a100": Gpu(80, 312.0),
    "h100": Gpu(80, 989.0),
    "h200": Gpu(141, 989.0),
}


@dataclass(frozen=True)
class Hardware:
    """What a run is planned for, and what share of its speed training is taken to reach."""

    name: str
    count: int
    utilisation: float

    @property
    def gpu(self) -> Gpu:
        """Its data sheet."""
        return GPUS[self.name]

    def hours(self, flops: float, slower: float = 1.0) -> float:
        """GPU hours, all GPUs together, for so many operations at a share `slower` of training's speed."""
        return flops / (self.gpu.tflops * 1e12 * self.utilisation * slower) / 3600
