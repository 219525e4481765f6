"""The world as a source: drawn scenes become the same records that a user's files become.

Every row has a random generator of its own, derived from (seed, set, row), so that a row does not depend on how
many are drawn beside it, except for which scene it gets.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tqdm import tqdm

from gapbridge.world.describe import BENCHMARKS, MIXTURE, SUBSETS, ask, caption, dialogue, reading
from gapbridge.world.draw import SIDE, draw
from gapbridge.world.scenes import ENCODER_BUCKETS, LANGUAGE_BUCKETS, Scene, draw_evenly, draw_with_edits

Records = list[dict[str, Any]]

EDITS = 3
"""Neighbours of a scene that stand beside it among the encoder's pairs."""
SHORT_SHARE = 0.1
"""Of the encoder's groups of a scene and its edits, whose captions leave the places out."""
SINGLE_SHARES = {"texts": 0.1, "images": 0.1, "probe": 0.1, "llm": 0.25, "instruct": 0.2}
"""Share of each set's rows that show one thing; the encoder's is `draw_with_edits`'s own."""
BENCHMARK_SINGLE_SHARE, COUNT_SINGLE_SHARE = 0.2, 0.5
"""Counting is only worth asking where one is as likely as two."""
NOVEL_FRACTION = 0.25
"""Questions about novel scenes for each question about scenes like those in training."""
INSTRUCT_TURNS = 3
INSTRUCT_MIXTURE = {**MIXTURE, "describe": 3.0, "placed": 1.0, "position": 4.0, "shape": 3.5}
"""Places and shapes are what the model learns last to find in a picture."""


def write(
    set_name: str, rows: int, seed: int, split: str, folder: Path, captions: bool = False
) -> list[dict[str, Any]]:
    """Draw `rows` records of one set, with their pictures in `folder`/pictures.tar where the set has any.

    `benchmark` gives `rows` questions of each type plus a fraction about novel scenes, on the scenes of `split`
    (`benchmark` or `dev`). `captions` keeps the captions of `images`. Raises ValueError for an unknown set.
    """
    name = split if set_name == "benchmark" else set_name
    if set_name == "texts":
        return _texts(_Draws(seed, name, rows))
    if set_name == "llm":
        return _language(_Draws(seed, name, rows))
    if set_name == "benchmark":
        return _benchmark(seed, split, rows, folder)
    record = {"images": _image, "encoder": _pair, "probe": _pair, "instruct": _dialogue}.get(set_name)
    if record is None:
        raise ValueError(f"no such set: {set_name}")
    draws = _Draws(seed, name, rows)
    with _Tar(folder / "pictures.tar") as tar:
        records = [
            {**_record(draws, row, scene), **tar.add(scene, random), **record(draws, row, scene, random)}
            for row, scene, random in draws
        ]
    if set_name == "images" and not captions:
        return [{**one, "caption": None} for one in records]
    return records


class _Draws:
    """The scenes of one set in order, each with its row number and its row's generator."""

    def __init__(self, seed: int, name: str, rows: int) -> None:
        self.name = name
        self._key = (seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]))
        self.scenes = self._scenes(self.random(), rows)
        self._short = self.random(0, 0).random(rows) < SHORT_SHARE

    def random(self, *place: int) -> np.random.Generator:
        """The generator of one row, or of the whole set."""
        return np.random.default_rng((*self._key, len(place), *place))

    def _scenes(self, random: np.random.Generator, rows: int) -> list[Scene]:
        if self.name == "encoder":
            return draw_with_edits(random, rows, ENCODER_BUCKETS, EDITS)
        buckets = LANGUAGE_BUCKETS if self.name == "llm" else (self.name,)
        return draw_evenly(random, rows, buckets, SINGLE_SHARES[self.name])

    def __iter__(self) -> Iterator[tuple[int, Scene, np.random.Generator]]:
        for row, scene in enumerate(tqdm(self.scenes, desc=f"draw {self.name}", unit=" rows", mininterval=1)):
            yield row, scene, self.random(row)

    def is_short(self, row: int) -> bool:
        """Whether the caption of this row leaves the places out; the encoder's alone do, each group as a whole."""
        return self.name == "encoder" and bool(self._short[row // (EDITS + 1)])


def _record(draws: _Draws, row: int, scene: Scene) -> dict[str, Any]:
    return {"id": f"{draws.name}-{row:07d}", "group_id": scene.text, "source": "world"}


def _texts(draws: _Draws) -> Records:
    return [{**_record(draws, row, scene), "text": caption(scene, random)} for row, scene, random in draws]


def _language(draws: _Draws) -> Records:
    records = []
    for row, scene, random in draws:
        context, turns = reading(scene, random)
        records.append({**_record(draws, row, scene), "text": None, "context": context, "turns": turns})
    return records


def _image(draws: _Draws, row: int, scene: Scene, random: np.random.Generator) -> dict[str, Any]:
    return {"caption": caption(scene, random)}


def _pair(draws: _Draws, row: int, scene: Scene, random: np.random.Generator) -> dict[str, Any]:
    text = caption(scene, random, draws.is_short(row), shuffled=draws.name == "encoder")
    return {"text": text, "objects": len(scene.things)}


def _dialogue(draws: _Draws, row: int, scene: Scene, random: np.random.Generator) -> dict[str, Any]:
    turns = dialogue(scene, random, INSTRUCT_TURNS, INSTRUCT_MIXTURE)
    return {"context": caption(scene, random), "turns": turns}


def _benchmark(seed: int, split: str, rows: int, folder: Path) -> Records:
    records: list[dict[str, Any]] = []
    with _Tar(folder / "pictures.tar") as tar:
        for number, benchmark in enumerate(tqdm(BENCHMARKS, desc=f"draw {split}", unit=" benchmarks")):
            random = np.random.default_rng((seed, int.from_bytes(hashlib.sha256(split.encode()).digest()[:8]), number))
            records += _questions(benchmark, rows, split, random, tar, novel=False)
            # A benchmark bucket has next to no novel scene of one thing: counting them would always give two.
            if benchmark != "count":
                records += _questions(benchmark, round(rows * NOVEL_FRACTION), split, random, tar, novel=True)
    return records


def _questions(
    benchmark: str, rows: int, split: str, random: np.random.Generator, tar: "_Tar", novel: bool
) -> Iterator[dict[str, Any]]:
    single_share = 0.0 if novel else COUNT_SINGLE_SHARE if benchmark == "count" else BENCHMARK_SINGLE_SHARE
    scenes = draw_evenly(random, rows, (split,), single_share, novel)
    for row, scene in enumerate(scenes):
        subset = SUBSETS[row % len(SUBSETS)] if benchmark == "pope" else None
        asked = ask(scene, BENCHMARKS[benchmark], random, subset)
        yield {
            "id": f"{benchmark}-{'novel' if novel else 'seen'}-{row:05d}",
            "group_id": scene.text,
            "source": "world",
            **tar.add(scene, random),
            "benchmark": benchmark,
            "question": asked.question,
            "answer": asked.answer,
            "subset": asked.subset,
            "novel": novel,
        }


class _Tar:
    """An uncompressed tar of drawn PNGs whose headers say nothing of when and by whom."""

    def __init__(self, path: Path) -> None:
        self._archive = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115, closed in __exit__
        self._archive_name = path.name
        self._count = 0

    def __enter__(self) -> "_Tar":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._archive.close()

    def add(self, scene: Scene, random: np.random.Generator) -> dict[str, Any]:
        """Draw the scene into the tar and return what a record says of its picture."""
        buffer = io.BytesIO()
        # Level 1: these flat pictures hardly get smaller above it, and level 6 costs three times the time.
        draw(scene, random).save(buffer, "PNG", compress_level=1)
        content = buffer.getvalue()
        header = tarfile.TarInfo(f"{self._count:06d}.png")
        header.size = len(content)
        self._archive.addfile(header, io.BytesIO(content))
        self._archive.members = []  # type: ignore[attr-defined]  # the tarfile module would keep every header
        self._count += 1
        locator = f"own:{self._archive_name}#{header.name}"
        return {"image": locator, "sha256": hashlib.sha256(content).hexdigest(), "width": SIDE, "height": SIDE}
