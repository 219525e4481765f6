"""What `embed` adds to its encoder: `python -m perf.embed --work DIR [--pictures 192] [--repeats 5]`.

JPEG files and a manifest on disk become shards by the code of the stage (decode, preprocess, encode, cache, write),
with an open_clip tower of ViT-B-32's size whose weights are random; beside it the tower's bare forward pass over the
same pictures, prepared beforehand, in the same batches. The two take turns, so that whatever else runs disturbs both;
each repeat starts on an empty cache. Prints medians and the medians of the paired ratios, for the clock and for the
processor time of the whole process, and writes docs/results/embed.json. Opening the encoder is timed apart: it happens
once.
"""

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import safetensors.torch
import torch
from PIL import Image

from gapbridge import artifacts
from gapbridge.corpus.manifest import read_manifest, write_manifest
from gapbridge.corpus.pictures import Pictures
from gapbridge.embeddings.encode import Encoding, Records, embed_images
from gapbridge.embeddings.encoders import BATCH_ROWS, DualEncoder, best_device, load_encoder, pin_encoder

ROOT = Path(__file__).resolve().parents[1]
_MODEL = "ViT-B-32"
_BATCH_SIZE, _SHARD_ROWS = 128, 65_536  # those of profiles/default.yaml
_SIDES = (224, 288)


def make_encoder(folder: Path) -> None:
    """A folder that open_clip loads, weights random, with its encoder.json."""
    torch.manual_seed(0)
    model = open_clip.create_model(_MODEL)
    config = {"model_cfg": open_clip.get_model_config(_MODEL), "preprocess_cfg": model.visual.preprocess_cfg}
    folder.mkdir(parents=True)
    safetensors.torch.save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    artifacts.write_json(folder / "open_clip_config.json", config)
    pin_encoder(folder, None, None, "{}")


def make_pictures(folder: Path, count: int) -> None:
    """`count` JPEG files of about 224 by 224 pixels, as soft as photographs, and their manifest."""
    random = np.random.default_rng(0)
    records = []
    (folder / "photos").mkdir(parents=True)
    for number in range(count):
        width, height = (int(side) for side in random.integers(*_SIDES, 2))
        path = folder / "photos" / f"{number:05d}.jpg"
        spots = Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        spots.resize((width, height), Image.Resampling.BICUBIC).save(path, quality=90)
        picture = {"image": f"root:photos/{path.name}", "sha256": artifacts.file_digest(path)}
        names = {"id": path.stem, "group_id": path.stem, "source": "perf", "caption": None}
        records.append({**names, **picture, "width": width, "height": height})
    write_manifest(folder / "manifest", "image", records, [])


def pipeline(encoder: DualEncoder, data: Path, work: Path) -> None:
    """What the stage does with a set of pictures, from its manifest to its shards."""
    for folder in ("cache", "out"):
        shutil.rmtree(work / folder, ignore_errors=True)
    manifest = read_manifest(data / "manifest")
    pictures = Pictures(data / "manifest", data)
    locators, digests = manifest["image"].to_list(), manifest["sha256"].to_list()
    records = Records(manifest["id"].to_list(), manifest["group_id"].to_list(), digests)
    encoding = Encoding(work / "cache", _BATCH_SIZE, _SHARD_ROWS)
    embed_images(
        encoder, records, lambda record: pictures.load(locators[record], digests[record]), work / "out", encoding
    )


def prepared(encoder: DualEncoder, data: Path, device: str) -> list[torch.Tensor]:
    """The same pictures as batches on the device."""
    manifest = read_manifest(data / "manifest")
    pictures = Pictures(data / "manifest", data)
    pixels = [encoder.pixels(pictures.load(locator)) for locator in manifest["image"]]
    return [torch.stack(pixels[start : start + BATCH_ROWS]).to(device) for start in range(0, len(pixels), BATCH_ROWS)]


def bare(encoder: DualEncoder, batches: list[torch.Tensor]) -> None:
    """The tower alone; vectors are brought back, which waits for a GPU."""
    with torch.inference_mode():
        for batch in batches:
            encoder.image.visual(batch).cpu()


def taken(work: Callable[[], None]) -> Iterator[float]:
    """Seconds by the clock, then of the processor in all threads."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    yield time.perf_counter() - clock
    yield time.process_time() - processor


def measure(work: Path, pictures: int, repeats: int, threads: int) -> dict[str, Any]:
    """Both in turn, `repeats` times after one that warms up."""
    torch.set_num_threads(threads)
    data, device = work / f"pictures-{pictures}", best_device()
    if not (work / "encoder").is_dir():
        make_encoder(work / "encoder")
    if not data.is_dir():
        make_pictures(data, pictures)
    begun = time.perf_counter()
    encoder = load_encoder(work / "encoder", device, threads)
    opening = time.perf_counter() - begun
    batches = prepared(encoder, data, device)
    sides = {"bare": lambda: bare(encoder, batches), "embed": lambda: pipeline(encoder, data, work)}
    runs = [{name: tuple(taken(side)) for name, side in sides.items()} for _ in range(repeats + 1)][1:]
    found: dict[str, Any] = {"model": _MODEL, "pictures": pictures, "repeats": repeats, "threads": threads}
    found |= {"device": device, "machine": _machine(device), "opening_seconds": round(opening, 2)}
    for place, kind in enumerate(("seconds", "processor_seconds")):
        for name in sides:
            found[f"{name}_{kind}"] = round(statistics.median(run[name][place] for run in runs), 3)
        ratios = [run["embed"][place] / run["bare"][place] for run in runs]
        found[f"{kind}_ratio"] = round(statistics.median(ratios), 3)
        found[f"{kind}_ratios"] = [round(ratio, 3) for ratio in ratios]
    return found


def _machine(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name()
    return f"{len(os.sched_getaffinity(0))} cores, {torch.backends.cpu.get_cpu_capability()}"


def main() -> None:
    """Measure, print, write docs/results/embed.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="a folder outside the checkout, for a gigabyte")
    parser.add_argument("--pictures", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of the encoder, as embed.threads")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    found = measure(arguments.work.resolve(), arguments.pictures, arguments.repeats, arguments.threads)
    shown = f"python -m perf.embed --work DIR --pictures {arguments.pictures} --repeats {arguments.repeats}"
    found = {"command": f"{shown} --threads {arguments.threads}", **found}
    (ROOT / "docs/results/embed.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
