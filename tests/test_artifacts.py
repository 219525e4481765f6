import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gapbridge import artifacts
from gapbridge.errors import ArtifactError, InputError


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_json_is_written_the_same_each_time_and_never_holds_nan(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "figures.json"
    artifacts.write_json(path, {"b": 1, "a": [0.1]})
    before = path.read_bytes()
    artifacts.write_json(path, {"a": [0.1], "b": 1})
    assert path.read_bytes() == before and artifacts.read_json(path) == {"a": [0.1], "b": 1}
    with pytest.raises(ValueError, match="JSON"):
        artifacts.write_json(path, {"a": float("nan")})
    assert path.read_bytes() == before and names_in(path.parent) == ["figures.json"]


def test_a_missing_or_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="run the stage"):
        artifacts.read_json(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"a":')
    with pytest.raises(ArtifactError, match="run its stage again"):
        artifacts.read_json(tmp_path / "half.json")


def test_a_folder_takes_its_place_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with artifacts.fresh_folder(target) as folder:
        (folder / "first").touch()
        assert not target.exists()
    with pytest.raises(RuntimeError), artifacts.fresh_folder(target) as folder:
        (folder / "second").touch()
        raise RuntimeError
    assert names_in(target) == ["first"] and names_in(tmp_path) == ["out"]
    with artifacts.fresh_folder(target):
        pass
    assert names_in(target) == []


@pytest.mark.parametrize("path", ["../secret", "/etc/passwd", "link/secret", "a/../../secret"])
def test_no_path_leaves_its_root(tmp_path: Path, path: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leaves its root"):
        artifacts.inside(root, path)
    assert artifacts.inside(root, "a/../b") == root.resolve() / "b"


def test_digests_are_those_that_dvc_writes(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / "deep" / "er").mkdir(parents=True)
    for name in ("z", "deep/er/a", "deep/ü", "deep.txt"):
        (folder / name).write_text(name)
    (tmp_path / "one.json").write_text("{}")
    (tmp_path / "dvc.yaml").write_text("stages: {s: {cmd: 'true', deps: [out, one.json]}}")
    dvc = [sys.executable, "-m", "dvc"]
    for arguments in (["init", "--no-scm", "-q"], ["repro", "-q"]):
        subprocess.run([*dvc, *arguments], cwd=tmp_path, check=True, capture_output=True)
    locked = yaml.safe_load((tmp_path / "dvc.lock").read_text())["stages"]["s"]["deps"]
    digests = {dep["path"]: dep["md5"] for dep in locked}
    assert digests == {name: artifacts.dvc_digest(tmp_path / name) for name in ("out", "one.json")}
    assert artifacts.file_digest(tmp_path / "one.json") == hashlib.sha256(b"{}").hexdigest()
