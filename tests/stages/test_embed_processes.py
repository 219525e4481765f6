"""embed as processes of its own: two under torchrun give the bytes of one, and a killed one loses one block at most."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from PIL import Image

from gapbridge import artifacts
from gapbridge.corpus.manifest import write_manifest
from gapbridge.embeddings.encoders import pin_encoder
from gapbridge.train.contrastive import Architecture, build_model, save_model
from gapbridge.train.tokens import train_tokenizer

ROWS, BLOCK = 240, 16
WORDS = ("red", "blue", "ring", "circle", "left", "right", "beside", "and")


@pytest.fixture
def prepared(workspace: Path, set_params: Callable[..., None]) -> Path:
    """A workspace with an encoder that open_clip loads and a probe of pictures and texts, in blocks of 16."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer([" ".join(WORDS)] * 3, 300, chat=False)
    architecture = Architecture(32, 32, 12, len(tokenizer), 70.0)
    encoder = workspace / "artifacts/encoder"
    encoder.mkdir(parents=True)
    save_model(encoder, build_model(architecture), tokenizer, architecture)
    pin_encoder(encoder, None, None, "{}")
    (workspace / "data").mkdir()
    records = [_pair(workspace, number) for number in range(ROWS)]
    write_manifest(workspace / "artifacts/ingest/probe", "pair", records, [])
    set_params(embed={"threads": 1, "batch_size": 8, "shard_rows": BLOCK})
    return workspace


def _pair(workspace: Path, number: int) -> dict[str, Any]:
    random = np.random.default_rng(number)
    path = workspace / "data" / f"{number}.png"
    Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    text = " ".join(random.choice(WORDS, size=1 + number % 8)) + f" {number}"
    picture = {"image": f"root:data/{number}.png", "sha256": artifacts.file_digest(path), "width": 40, "height": 40}
    names = {"id": f"r{number:03d}", "group_id": f"g{number}", "source": "test"}
    return {**names, **picture, "text": text, "objects": 1, "caption": None}


def _environment(caches: Path) -> dict[str, str]:
    own = {"GAPBRIDGE_CACHE": str(caches), "GAPBRIDGE_SCRATCH": str(caches / "scratch"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


def _embed(workspace: Path, caches: Path, *launcher: str) -> str:
    """Run `gapbridge embed probe` to its end; the digest of its out."""
    command = [sys.executable, *launcher, "-m", "gapbridge.cli", "embed", "probe"]
    subprocess.run(command, cwd=workspace, env=_environment(caches), check=True, timeout=300, capture_output=True)
    return artifacts.dvc_digest(workspace / "artifacts/embed/probe")


def _blocks(caches: Path) -> dict[Path, set[bytes]]:
    """The keys in each block of the cache."""
    found = {}
    for path in caches.glob("vectors/*/block-*.safetensors"):
        keys = safetensors.numpy.load_file(path)["keys"]
        found[path] = {row.tobytes() for row in keys}
    return found


@pytest.mark.slow
def test_two_processes_give_the_bytes_of_one(prepared: Path, tmp_path: Path) -> None:
    alone = _embed(prepared, tmp_path / "alone")
    metrics = (prepared / "metrics/embed/probe.json").read_bytes()
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert _embed(prepared, tmp_path / "two", *torchrun) == alone
    assert (prepared / "metrics/embed/probe.json").read_bytes() == metrics
    keys = list(_blocks(tmp_path / "two").values())
    assert sum(map(len, keys)) == len(set.union(*keys)) == 2 * ROWS, "nothing is encoded by both"


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_whole_block(prepared: Path, tmp_path: Path) -> None:
    undisturbed = _embed(prepared, tmp_path / "undisturbed")
    shutil.rmtree(prepared / "artifacts/embed")
    caches = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "gapbridge.cli", "embed", "probe"],
        cwd=prepared, env=_environment(caches), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(_blocks(caches)) < 3 and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the stage ended before it was killed"
    kept = _blocks(caches)
    assert 3 <= len(kept) < 2 * ROWS // BLOCK
    assert not (prepared / "artifacts/embed/probe").exists()
    assert _embed(prepared, caches) == undisturbed
    after = _blocks(caches)
    assert set(kept) <= set(after)
    assert sum(map(len, after.values())) == 2 * ROWS, "what was kept is not encoded again"
