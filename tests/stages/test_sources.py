"""The stage that notices changed files."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from gapbridge.errors import InputError
from gapbridge.stages.runner import cache_root
from gapbridge.stages.sources import DigestMemory


def listing(workspace: Path) -> bytes:
    return (workspace / "artifacts/sources/sources.json").read_bytes()


def test_files_are_listed_with_size_and_digest_and_nothing_of_the_machine(
    user_files: Path, workspace: Path, run_bare: Callable[[str], dict[str, Any]]
) -> None:
    metrics = run_bare("sources")
    sets = json.loads(listing(workspace))["sets"]
    texts = user_files / "texts.jsonl"
    assert sets["texts"]["files"] == [
        {
            "path": "data/texts.jsonl",
            "bytes": texts.stat().st_size,
            "sha256": hashlib.sha256(texts.read_bytes()).hexdigest(),
        }
    ]
    pictures = [f"data/instruct/{n}.png" for n in range(6)]
    assert [file["path"] for file in sets["instruct"]["files"]] == ["data/instruct.json", *pictures]
    assert metrics["instruct"]["files"] == 7
    assert str(workspace).encode() not in listing(workspace)


def test_a_time_of_change_alone_changes_nothing_and_a_changed_byte_does(
    user_files: Path, workspace: Path, run_bare: Callable[[str], dict[str, Any]]
) -> None:
    run_bare("sources")
    before = listing(workspace)
    os.utime(user_files / "texts.jsonl", (1, 1))
    run_bare("sources")
    assert listing(workspace) == before
    changed = user_files / "images" / "3.png"
    changed.write_bytes(changed.read_bytes() + b"\0")
    run_bare("sources")
    sets, old = (json.loads(one)["sets"] for one in (listing(workspace), before))
    assert {name for name in sets if sets[name] != old[name]} == {"images", "encoder"}


def test_a_world_source_is_its_params_alone(workspace: Path, run_bare: Callable[[str], dict[str, Any]]) -> None:
    assert run_bare("sources")["texts"] == {"files": 0, "bytes": 0}
    texts = json.loads(listing(workspace))["sets"]["texts"]
    assert (texts["sources"][0]["rows"], texts["files"]) == (20000, [])


def test_a_null_set_is_left_out(
    user_files: Path, workspace: Path, set_params: Callable[..., None], run_bare: Callable[[str], dict[str, Any]]
) -> None:
    set_params(sources={"llm": None})
    assert "llm" not in run_bare("sources")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"path": "data/no.jsonl"}, "sources.texts.path: data/no.jsonl does not exist"),
        ({"path": "../no.jsonl"}, r"sources\.texts\.path: ../no\.jsonl: leaves its root"),
        ({"path": "a\0b"}, r"sources\.texts\.path: 'a\\x00b' cannot be opened \(embedded null"),
        ({"path": "n" * 300}, r"sources\.texts\.path: 'n{60}' cannot be opened \(.*too long"),
        ({"path": "data/circle"}, r"sources\.texts\.path: 'data/circle' cannot be opened \(Symlink loop"),
        ({"path": "data/texts.jsonl", "images": "data/no"}, "sources.texts.images: data/no does not exist"),
    ],
)
def test_a_missing_source_is_told_and_leaves_nothing_behind(
    user_files: Path,
    workspace: Path,
    set_params: Callable[..., None],
    source: dict[str, Any],
    message: str,
    run_bare: Callable[[str], dict[str, Any]],
) -> None:
    (user_files / "circle").symlink_to(user_files / "circle")
    set_params(sources={"texts": {"format": "jsonl", **source}})
    with pytest.raises(InputError, match=message):
        run_bare("sources")
    assert not (workspace / "artifacts/sources").exists()


def test_a_link_out_of_the_root_is_not_followed(
    user_files: Path,
    workspace: Path,
    tmp_path_factory: pytest.TempPathFactory,
    run_bare: Callable[[str], dict[str, Any]],
) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.png"
    secret.write_bytes(b"secret")
    (user_files / "images" / "link.png").symlink_to(secret)
    run_bare("sources")
    files = json.loads(listing(workspace))["sets"]["images"]["files"]
    assert {"path": "data/images/link.png", "bytes": 0, "sha256": None} in files


def aged(path: Path, content: bytes, nanoseconds: int) -> Path:
    path.write_bytes(content)
    os.utime(path, ns=(nanoseconds, nanoseconds))
    return path


def test_digests_are_remembered_for_settled_files_alone(tmp_path: Path) -> None:
    """The trick of the test: other bytes of the same size and time, which only a memory can miss."""
    old, new = 10**18, time.time_ns()
    settled, fresh = aged(tmp_path / "a", b"one", old), aged(tmp_path / "b", b"one", new)
    memory = DigestMemory(tmp_path / "memory.json")
    first = memory.digest(settled)
    assert memory.digest(fresh) == first
    memory.save()
    aged(settled, b"two", old)
    aged(fresh, b"two", new)
    later = DigestMemory(tmp_path / "memory.json")
    assert later.digest(settled) == first
    assert later.digest(fresh) == (3, hashlib.sha256(b"two").hexdigest())
    aged(settled, b"two", old + 1)
    assert later.digest(settled) == later.digest(fresh)


def test_a_damaged_memory_is_no_memory(
    user_files: Path, workspace: Path, run_bare: Callable[[str], dict[str, Any]]
) -> None:
    run_bare("sources")
    before = listing(workspace)
    for file in user_files.rglob("*.*"):
        os.utime(file, (1, 1))
    run_bare("sources")
    (memory,) = (cache_root() / "digests").iterdir()
    memory.write_bytes(b'{"half')
    run_bare("sources")
    assert listing(workspace) == before
    json.loads(memory.read_text())


def remember(paths: tuple[Path, Path]) -> None:
    """What one of many processes does: digest one file, save."""
    file, path = paths
    memory = DigestMemory(path)
    memory.digest(file)
    memory.save()


def test_many_processes_may_save_at_once(tmp_path: Path) -> None:
    paths = [(aged(tmp_path / f"{n}", b"one", 10**18), tmp_path / "memory.json") for n in range(20)]
    with get_context("fork").Pool(4) as pool:
        pool.map(remember, paths, chunksize=1)
    (remembered,) = json.loads((tmp_path / "memory.json").read_text())
    assert remembered in {str(file) for file, _ in paths}
    assert not list(tmp_path.glob(".*"))


def test_the_stage_imports_no_heavy_library() -> None:
    heavy = {"polars", "numpy", "torch", "PIL", "pandera"}
    code = f"import sys, gapbridge.stages.sources; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_root_is_told_as_such(
    user_files: Path, set_params: Callable[..., None], run_bare: Callable[[str], dict[str, Any]]
) -> None:
    set_params(sources={"root": "elsewhere"})
    with pytest.raises(InputError, match=r"sources\.root: there is no folder .*elsewhere; mend it in params"):
        run_bare("sources")


def test_what_a_meta_file_names_is_seen_too(
    user_files: Path, workspace: Path, set_params: Callable[..., None], run_bare: Callable[[str], dict[str, Any]]
) -> None:
    meta = {"a": {"root": "data/images", "annotation": "data/texts.jsonl"}}
    (user_files / "meta.json").write_text(json.dumps(meta))
    set_params(sources={"instruct": {"format": "internvl", "path": "data/meta.json"}})
    run_bare("sources")
    paths = [file["path"] for file in json.loads(listing(workspace))["sets"]["instruct"]["files"]]
    assert paths[:2] == ["data/meta.json", "data/texts.jsonl"] and len(paths) == 8
