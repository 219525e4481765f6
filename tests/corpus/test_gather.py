"""Gathering keeps the order and stops where too much is bad."""

from collections.abc import Callable
from pathlib import Path

import pytest

from gapbridge.corpus.gather import gather, stop_if_too_bad
from gapbridge.corpus.origin import Origin
from gapbridge.corpus.quarantine import BadRow, write_quarantine
from gapbridge.errors import InputError

BAD = [BadRow("s", f"s line {n}", None, "odd" if n == 1 else "common") for n in (1, 4, 9)]


def test_the_number_of_threads_changes_nothing(save_picture: Callable[..., Path], tmp_path: Path) -> None:
    for n in range(30):
        path = save_picture(f"photos/{n:02d}.png", n)
        if n % 7 == 0:
            path.write_bytes(path.read_bytes()[:60])
    one, many = (list(gather(Origin("images", tmp_path, "photos"), "folder", "image", 10_000, n)) for n in (1, 4))
    assert one == many
    assert (len(one), sum(isinstance(row, BadRow) for row in one)) == (30, 5)


def test_the_line_names_the_commonest_reason_its_first_place_and_the_table(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        stop_if_too_bad("texts", 97, write_quarantine(tmp_path / "q", BAD), 0.01, Path("runs/q.parquet"))
    message = str(caught.value)
    assert message.startswith("s line 4: common (2 such rows; in all 3 of the 100 rows of texts are bad")
    assert "runs/q.parquet" in message
    assert "\n" not in message


@pytest.mark.parametrize(("good", "fraction"), [(97, 0.03), (0, 1.0)])
def test_as_many_bad_rows_as_allowed_pass(good: int, fraction: float, tmp_path: Path) -> None:
    stop_if_too_bad("texts", good, write_quarantine(tmp_path / "q", BAD), fraction, Path("q"))
    with pytest.raises(InputError):
        stop_if_too_bad("texts", good, write_quarantine(tmp_path / "r", [*BAD, *BAD]), fraction / 2, Path("q"))


def test_no_bad_row_passes_when_none_is_allowed(tmp_path: Path) -> None:
    stop_if_too_bad("texts", 0, write_quarantine(tmp_path / "q", []), 0.0, Path("q"))
