"""Micro-batches: requests that arrive within a few milliseconds, or while the model is busy, are answered together."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from gapbridge.serving.generation import Failed, Job, answer
from gapbridge.serving.metrics import Metrics
from gapbridge.serving.vector_log import VectorLog

_log = logging.getLogger(__name__)


class Engine:
    """Owns the one thread that models run in, and the jobs that wait for it."""

    def __init__(
        self, batch_size: int, gather_seconds: float, threads: int, metrics: Metrics, vectors: VectorLog | None = None
    ) -> None:
        self._batch_size, self._gather_seconds = batch_size, gather_seconds
        self._metrics, self._vectors = metrics, vectors
        self._jobs: deque[Job] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "model", initializer=torch.set_num_threads, initargs=(threads,))

    def submit(self, job: Job) -> None:
        """Queue a job; its outcome comes by `job.tell`."""
        self._jobs.append(job)
        self._arrived.set()

    async def run(self) -> None:
        """Answer jobs until cancelled."""
        while True:
            await self._arrived.wait()
            if len(self._jobs) < self._batch_size:
                await asyncio.sleep(self._gather_seconds)
            if batch := self._next_batch():
                await self._answer(batch)
            if not self._jobs:
                self._arrived.clear()

    def close(self) -> None:
        """Wait for the thread, and write what is not yet written."""
        self._thread.shutdown()
        if self._vectors:
            self._vectors.close()

    def _next_batch(self) -> list[Job]:
        """The oldest jobs of the model whose job is oldest; those that nobody waits for are forgotten."""
        wanted = [job for job in self._jobs if job.wanted]
        batch = [job for job in wanted if job.model is wanted[0].model][: self._batch_size]
        chosen = set(map(id, batch))
        self._jobs = deque(job for job in wanted if id(job) not in chosen)
        return batch

    async def _answer(self, batch: Sequence[Job]) -> None:
        work = asyncio.get_running_loop().run_in_executor(self._thread, self._work, batch)
        await asyncio.wait([work])
        if error := work.exception():
            number = secrets.token_hex(4)
            _log.error("error %s: a batch of %d failed", number, len(batch), exc_info=error)
            for job in batch:
                job.end(Failed(number))

    def _work(self, batch: Sequence[Job]) -> None:
        with self._metrics.batch(len(batch)):
            vectors = answer(batch)
        if self._vectors:
            self._vectors.add(vectors, batch[0].model.fingerprint)
