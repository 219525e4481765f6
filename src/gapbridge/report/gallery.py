"""The gallery: items drawn by the seed, right and wrong alike, and a few more of the wrong ones."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from gapbridge import artifacts

FORMAT_VERSION = 1
INDEX = "gallery.json"
FOLDER = "gallery"
_MISTAKES = 8
_LONGEST_SIDE = 384


@dataclass(frozen=True)
class Exhibit:
    """A picture with a question, the right answer and the model's; `score` is 0 to 1.

    `picture` is its file: a PNG, or a `.npy` of its vector where the picture itself was never at hand.
    """

    picture: str
    benchmark: str
    question: str
    answer: str
    said: str
    score: float
    novel: bool
    mistake: bool
    """Drawn from the wrong answers alone."""

    @property
    def is_shown(self) -> bool:
        """Whether there is a picture to show."""
        return not self.picture.endswith(".npy")

    @property
    def verdict(self) -> str:
        """`right`, `wrong`, or between them `partly right`."""
        return "right" if self.score == 1 else "wrong" if self.score == 0 else "partly right"


def draw(predictions: Sequence[dict[str, Any]], count: int, seed: int) -> list[tuple[dict[str, Any], bool]]:
    """`count` predictions drawn evenly from all, then a few further ones from those that are not wholly right.

    Each comes with whether it is one of the latter.
    """
    random = np.random.default_rng([seed, len(predictions)])
    order = random.permutation(len(predictions)).tolist()
    chosen = [(predictions[place], False) for place in order[:count]]
    wrong = [predictions[place] for place in order[count:] if score_of(predictions[place]) < 1]
    return chosen + [(one, True) for one in wrong[:_MISTAKES]]


def score_of(prediction: dict[str, Any]) -> float:
    """0 to 1: the F1 of a caption, else whether the answer is right."""
    return float(prediction["f1"] if "f1" in prediction else prediction["correct"])


def write_gallery(
    folder: Path, drawn: Sequence[tuple[dict[str, Any], bool]], load: Callable[[str], Image.Image | np.ndarray]
) -> list[Exhibit]:
    """Write the pictures as PNG into `folder`/gallery and gallery.json beside.

    `load` opens an item's picture, or gives its vector where there is none.
    """
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    exhibits = []
    for number, (prediction, mistake) in enumerate(drawn):
        name = f"{FOLDER}/{number:02d}-{_file_safe(prediction['benchmark'])}"
        exhibits.append(_exhibit(prediction, mistake, name + _write(folder / name, load(prediction["item_id"]))))
    artifacts.write_json(
        folder / INDEX, {"format_version": FORMAT_VERSION, "exhibits": [asdict(exhibit) for exhibit in exhibits]}
    )
    return exhibits


def _write(path: Path, picture: Image.Image | np.ndarray) -> str:
    """Write the picture, or its vector, to `path` with the suffix that is returned."""
    if isinstance(picture, np.ndarray):
        np.save(path.with_name(path.name + ".npy"), picture, allow_pickle=False)
        return ".npy"
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    picture.save(path.with_name(path.name + ".png"), format="PNG", optimize=True)
    return ".png"


def read_gallery(folder: Path) -> list[Exhibit]:
    """The exhibits that `write_gallery` listed. Raises ArtifactError when the list is missing."""
    return [Exhibit(**entry) for entry in artifacts.read_json(folder / INDEX)["exhibits"]]


def _exhibit(prediction: dict[str, Any], mistake: bool, picture: str) -> Exhibit:
    return Exhibit(
        picture=picture,
        benchmark=prediction["benchmark"],
        question=prediction["prompt"],
        answer=prediction["answer"],
        said=prediction["raw"],
        score=score_of(prediction),
        novel=prediction["novel"],
        mistake=mistake,
    )


def _file_safe(name: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)[:40]
