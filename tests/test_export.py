"""`gapbridge export` on the tiny model, with the card that the report would write."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gapbridge import artifacts
from gapbridge.cli import cli
from gapbridge.errors import ArtifactError, InputError
from gapbridge.evaluate.predict import ask
from gapbridge.export import export
from gapbridge.report.card import model_card
from gapbridge.report.facts import Recipe
from gapbridge.report.gallery import draw, write_gallery

from .evaluate.tiny import save_model
from .report import made_up


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with model, card and gallery."""
    workspace = tmp_path_factory.mktemp("trained")
    model, report = workspace / "artifacts/instruct", workspace / "artifacts/report"
    save_model(model, fingerprint="f", seeing=True)
    (model / "training").mkdir()
    made_up.losses().write_parquet(model / "training/losses.parquet")
    write_gallery(report, draw(made_up.predictions(), 6, seed=0), made_up.picture)
    (report / "model_card.md").write_text(model_card(Recipe(), made_up.metrics(), artifacts.model_digest(model)))
    return workspace


def run(workspace: Path, target: Path) -> Any:
    report = workspace / "artifacts/report"
    return export(workspace / "artifacts/instruct", report / "model_card.md", target, report)


def invoke(monkeypatch: pytest.MonkeyPatch, workspace: Path, *arguments: str) -> Result:
    monkeypatch.chdir(workspace)
    return CliRunner().invoke(cli, ["export", *arguments], standalone_mode=False)


def test_the_copy_is_whole_has_the_card_and_answers_alike(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "new/model"
    done = invoke(monkeypatch, trained, str(target))
    assert done.exit_code == 0 and "12 probe questions answered alike" in done.stdout
    original = trained / "artifacts/instruct"
    expected = {file.name for file in original.iterdir() if file.is_file()}
    assert {file.name for file in target.iterdir()} == expected | {"README.md"}
    assert artifacts.model_digest(target) == artifacts.model_digest(original)
    assert (target / "README.md").read_bytes() == (trained / "artifacts/report/model_card.md").read_bytes()
    assert list((tmp_path / "new").iterdir()) == [target]
    picture = tmp_path / "one.png"
    made_up.picture("color-03").save(picture)
    assert ask(target, picture, "where is it") == ask(original, picture, "where is it")


def test_an_exported_model_is_exported_again_with_its_own_card(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()  # empty is as good as new
    run(trained, first)
    (tmp_path / "elsewhere").mkdir()
    done = invoke(
        monkeypatch, tmp_path / "elsewhere", str(second), "--model", str(first), "--card", str(first / "README.md")
    )
    assert done.exit_code == 0 and "4 probe questions" in done.stdout
    assert {file.name: file.read_bytes() for file in second.iterdir()} == {
        file.name: file.read_bytes() for file in first.iterdir()
    }


def test_a_copy_that_answers_otherwise_is_not_left(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    save_model(other, fingerprint="f")
    real = shutil.copyfile

    def swapped(source: Path, target: Path) -> None:
        real(other / source.name if source.suffix == ".safetensors" else source, target)

    monkeypatch.setattr(shutil, "copyfile", swapped)
    with pytest.raises(ArtifactError, match=r"the copy says .* the original .*nothing was exported"):
        run(trained, tmp_path / "out/model")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_folder_that_holds_something_is_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").write_text("kept")
    with pytest.raises(InputError, match="is not empty"):
        run(trained, tmp_path / "full")
    with pytest.raises(InputError, match="is a file"):
        run(trained, tmp_path / "full/mine")
    with pytest.raises(InputError, match="lies inside the model"):
        run(trained, trained / "artifacts/instruct/copy")
    assert (tmp_path / "full/mine").read_text() == "kept"
    assert not (trained / "artifacts/instruct/copy").exists()


def test_a_card_of_another_model_or_none_stops_it(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    save_model(other, fingerprint="another")
    done = invoke(monkeypatch, trained, str(tmp_path / "out"), "--model", str(other))
    assert "is not the card of this model" in str(done.exception)
    done = invoke(monkeypatch, tmp_path, str(tmp_path / "out"), "--model", str(other))
    assert "no model card" in str(done.exception) and "dvc repro report" in str(done.exception)
    done = invoke(monkeypatch, tmp_path, str(tmp_path / "out"))
    assert isinstance(done.exception, InputError) and "no trained model" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_it_does_not_begin_where_the_disk_is_full(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match="1,000 are free; make room"):
        run(trained, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_drawn_probes_are_the_same_every_time() -> None:
    from gapbridge.export import _probes

    first, second = _probes(Path("nowhere")), _probes(Path("nowhere"))
    assert len(first) == 4
    assert all(np.array_equal(np.asarray(a.picture), np.asarray(b.picture)) for a, b in zip(first, second, strict=True))


def test_a_link_to_an_empty_folder_stays_one_and_a_place_below_a_file_is_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    run(trained, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real/config.json").is_file()
    with pytest.raises(InputError, match="cannot be written"):
        run(trained, tmp_path / "real/config.json/new")


def test_the_current_folder_takes_it(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(trained, Path())
    assert (tmp_path / "config.json").is_file()
