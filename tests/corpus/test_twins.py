"""Pictures that look alike though their files differ."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from gapbridge.corpus.twins import CLOSE_BITS, look, near_twins


def _photo(seed: int, size: tuple[int, int] = (200, 150)) -> Image.Image:
    """Smooth patches of colour, as photographs have them."""
    rough = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(rough).resize(size, Image.Resampling.BICUBIC)


def _saved_again(picture: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=60)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize(
    "change",
    [
        lambda photo: photo.resize((97, 73)),
        _saved_again,
        lambda photo: photo.crop((2, 1, 199, 149)),
        lambda photo: photo.point(lambda value: min(255, round(value * 0.9 + 12))),
    ],
    ids=["scaled", "saved again", "cropped a little", "brighter"],
)
def test_the_same_photo_is_found_and_others_are_not(change: Callable[[Image.Image], Image.Image]) -> None:
    others = [look(_photo(seed)) for seed in range(60)]
    changed = [look(change(_photo(seed))) for seed in range(20)]
    assert near_twins(changed, others).mean() >= 0.9
    strangers = [look(_photo(seed)) for seed in range(100, 140)]
    assert not near_twins(strangers, others).any()


def test_colours_count() -> None:
    photo = _photo(3)
    red, green, blue = photo.split()
    assert not near_twins([look(Image.merge("RGB", (blue, red, green)))], [look(photo)]).any()


def test_close_is_exactly_so_many_bits() -> None:
    base = look(_photo(0))
    number = int(base, 16)

    def differing(bits: int) -> str:
        """One bit of each word, from the first word on."""
        return f"{number ^ sum(1 << (16 * place) for place in range(bits)):048x}"

    assert near_twins([differing(CLOSE_BITS)], [base]).all()
    assert not near_twins([differing(CLOSE_BITS + 1)], [base]).any()


@pytest.mark.parametrize(("looks", "others"), [([], ["0" * 48]), (["0" * 48], [])])
def test_nothing_has_no_twins(looks: list[str], others: list[str]) -> None:
    assert not near_twins(looks, others).any()
