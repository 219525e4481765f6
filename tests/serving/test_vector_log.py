"""Requests as vectors: what is kept, what is not, and that `gapbridge drift` reads it."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from gapbridge.align import Side, fit_held_out
from gapbridge.cli import cli
from gapbridge.embeddings.shards import Shards
from gapbridge.errors import InputError
from gapbridge.evaluate.predict import Predictor
from gapbridge.serving import vector_log
from gapbridge.serving.vector_log import VectorLog
from tests.evaluate.tiny import unit_vectors
from tests.serving.chats import CHAT, chat, picture
from tests.serving.conftest import Start


def test_requests_leave_the_vectors_of_their_pictures_and_nothing_else(
    start: Start, predictor: Predictor, tmp_path: Path
) -> None:
    client = start(log_embeddings=tmp_path / "log")
    for number in (0, 1, 0):
        assert client.post(CHAT, json=chat(number)).status_code == 200
    client.__exit__()  # the service ends
    shards = Shards.open(tmp_path / "log" / "unknown")
    pixels = predictor.pictured([picture(0), picture(1)])([0, 1, 0])["pixel_values"]
    expected = predictor.model.model.vision_tower(pixels).pooler_output.detach().numpy()
    np.testing.assert_allclose(shards.read(range(3)), expected, atol=1e-3)
    assert len(set(shards.ids)) == 3 and shards.groups[0] == shards.groups[2] != shards.groups[1]
    files = sorted(path.name for path in (tmp_path / "log").rglob("*") if path.is_file())
    assert files == [".lock", "emb_00000.npy", "ids_00000.parquet", "index.json"]


def test_drift_reads_what_was_logged(tmp_path: Path) -> None:
    texts, images = unit_vectors(120)[::2], unit_vectors(120)[1::2]
    alignment = fit_held_out(Side(texts), Side(images))[0].with_origin("fingerprint-of-encoder", {})
    (tmp_path / "alignment").mkdir()
    alignment.save(tmp_path / "alignment")
    np.save(tmp_path / "texts.npy", texts)
    log = VectorLog(tmp_path / "log")
    for row in range(0, 60, 7):
        log.add(images[row : row + 7], "fingerprint-of-encoder")
    log.close()
    folder = tmp_path / "log" / "fingerprint-"
    found = CliRunner().invoke(
        cli,
        [
            "drift",
            str(tmp_path / "alignment"),
            "--texts",
            str(tmp_path / "texts.npy"),
            "--images",
            str(folder),
            "--json",
        ],
    )
    figures = json.loads(found.output)
    assert figures["n_images"] == 60 and figures["image_mean_shift_in_errors"] < 0.5


def test_pieces_are_added_and_another_encoder_has_its_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vector_log, "_PIECE_ROWS", 4)
    log = VectorLog(tmp_path)
    log.add(unit_vectors(3), "one")
    assert not (tmp_path / "one").exists()
    log.add(unit_vectors(3), "one")
    assert Shards.open(tmp_path / "one", "one").counts == (6,)
    log.add(unit_vectors(2), "one")
    log.add(unit_vectors(1), "two")
    assert Shards.open(tmp_path / "one").counts == (6, 2)
    log.close()
    assert Shards.open(tmp_path / "two", "two").rows == 1
    again = VectorLog(tmp_path)
    again.add(unit_vectors(1), "one")
    again.close()
    shards = Shards.open(tmp_path / "one")
    assert shards.counts == (6, 2, 1) and len(set(shards.ids)) == 9


def test_what_cannot_be_written_is_counted_and_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = VectorLog(tmp_path)
    (tmp_path / "one").write_text("in the way")
    log.add(unit_vectors(3), "one")
    log.flush()
    assert log.lost == 3 and "3 embeddings were not written" in caplog.text
    log.close()


def test_two_services_do_not_write_in_one_folder(tmp_path: Path) -> None:
    log = VectorLog(tmp_path)
    with pytest.raises(InputError, match="another service writes there"):
        VectorLog(tmp_path)
    log.close()
    VectorLog(tmp_path).close()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        VectorLog(tmp_path / "file")
