"""A newcomer's way from a folder of pictures to a report, and what the commonest mistakes on it say."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import polars
import pytest
import yaml
from PIL import Image, ImageDraw

from gapbridge import tracking
from gapbridge.cli import main
from gapbridge.profiles import overlay

from .conftest import call, copy_of_tracked_files, environment

THINGS = ("house", "tree", "boat")
COLOURS = {"red": (200, 40, 40), "blue": (40, 70, 210), "yellow": (235, 205, 40), "white": (245, 245, 245)}
SKIES = {"by day": (150, 200, 240), "at night": (20, 22, 50), "at dusk": (240, 150, 90)}
SPARSE = {"steps": 12, "batch_size": 8}
CHANGES: dict[str, Any] = {
    "sources": {"encoder": {"path": "pairs.jsonl", "images": "pairs"}, "llm": {"path": "dialogues.json"}},
    "ingest": {"max_bad_fraction": 0.05},
    "encoder": {"pretrained": None, "width": 32, "training": {"steps": 60, "batch_size": 32}},
    "llm": {"pretrained": None, "hidden_size": 32, "intermediate_size": 64, "training": {"steps": 60}},
    "geometry": {"rows": 60},
    "pretrain": {"threads": 1, "adapter": {"hidden_size": 32}, "training": SPARSE},
    "instruct": {"threads": 1, "training": SPARSE},
    "report": {"gallery": 4},
}
"""What someone without a model at hand edits in `cpu-small`, and few steps."""


@dataclass(frozen=True)
class Scene:
    """What one picture shows."""

    thing: str
    colour: str
    sky: str

    @property
    def caption(self) -> str:
        return f"a {self.colour} {self.thing} {self.sky}"

    @property
    def questions(self) -> list[tuple[str, str]]:
        return [("what color is it", self.colour), ("describe the picture", self.caption)]

    def drawn(self, random: Random) -> Image.Image:
        """Of any size, with some dust, so that no two files are alike."""
        width, height = random.randint(70, 130), random.randint(70, 110)
        image = Image.new("RGB", (width, height), SKIES[self.sky])
        pen, x, y = ImageDraw.Draw(image), width * random.uniform(0.35, 0.65), height * 0.55
        pen.rectangle([0, height * 0.75, width, height], fill=(80, 120, 70))
        if self.thing == "house":
            pen.rectangle([x - 14, y - 12, x + 14, y + 14], fill=COLOURS[self.colour])
            pen.polygon([(x - 18, y - 12), (x + 18, y - 12), (x, y - 30)], fill=(90, 50, 30))
        elif self.thing == "tree":
            pen.rectangle([x - 3, y, x + 3, y + 20], fill=(100, 60, 20))
            pen.ellipse([x - 16, y - 24, x + 16, y + 6], fill=COLOURS[self.colour])
        else:
            pen.polygon([(x - 22, y), (x + 22, y), (x + 14, y + 12), (x - 14, y + 12)], fill=COLOURS[self.colour])
            pen.polygon([(x, y - 2), (x, y - 28), (x + 16, y - 2)], fill=(250, 250, 230))
        for _ in range(20):
            pen.point((random.randrange(width), random.randrange(height)), fill=(random.randrange(256), 90, 90))
        return image


Said = Callable[..., tuple[int, str]]


@dataclass(frozen=True)
class Newcomer:
    """A checkout with someone's own files in data/, and what `plan` said before the run to the report."""

    path: Path
    planned: str


@pytest.fixture
def said(newcomer: "Newcomer", monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Said:
    """Exit status and words, both streams, of a gapbridge command in the newcomer's checkout, as `main` gives them."""
    monkeypatch.chdir(newcomer.path)
    monkeypatch.setattr(tracking, "start_mirror", lambda run_folder: None)

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        return int(end.value.code or 0), "".join(capfd.readouterr())

    return run


def some_scene(random: Random) -> Scene:
    return Scene(random.choice(THINGS), random.choice(list(COLOURS)), random.choice(list(SKIES)))


def turns(questions: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [
        turn
        for asked, answer in questions
        for turn in ({"from": "human", "value": asked}, {"from": "gpt", "value": answer})
    ]


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_data(data: Path) -> None:
    """The files that `cpu-small` names, and pairs and dialogues for those who train the parts themselves."""
    random = Random(5)
    data.mkdir()

    def pictures(folder: str, count: int) -> list[tuple[str, Scene]]:
        (data / folder).mkdir()
        found = []
        for number in range(count):
            scene, name = some_scene(random), f"{number:03d}.{'png' if number % 3 else 'jpg'}"
            scene.drawn(random).save(data / folder / name)
            found.append((name, scene))
        return found

    lines(data / "texts.jsonl", [{"text": some_scene(random).caption} for _ in range(300)])
    pictures("pictures", 120)
    write_odd_pictures(data / "pictures", random)
    pairs = pictures("pairs", 160)
    lines(data / "pairs.jsonl", [{"id": name, "image": name, "text": scene.caption} for name, scene in pairs])
    told = [some_scene(random) for _ in range(200)]
    dialogues = [
        {"id": number, "context": scene.caption, "conversations": turns(scene.questions)}
        for number, scene in enumerate(told)
    ]
    (data / "dialogues.json").write_text(json.dumps(dialogues))
    for folder, count, some in (("instruct", 60, slice(None)), ("probe", 40, slice(1, None))):
        rows = [
            {"id": name, "image": name, "conversations": turns(scene.questions[some])}
            for name, scene in pictures(folder, count)
        ]
        (data / f"{folder}.json").write_text(json.dumps(rows))
    asked = [(name, scene, thing) for name, scene in pictures("questions", 40) for thing in THINGS[:2]]
    questions = [
        {"question_id": number, "image": name, "text": f"is there a {thing}", "label": _yes(scene.thing == thing)}
        for number, (name, scene, thing) in enumerate(asked)
    ]
    lines(data / "questions.jsonl", questions)


def _yes(true: bool) -> str:
    return "yes" if true else "no"


def write_odd_pictures(folder: Path, random: Random) -> None:
    """CMYK, turned by EXIF, called by another suffix; and two that are none: one cut short, one of Windows' own."""

    def drawn() -> Image.Image:
        return some_scene(random).drawn(random)

    drawn().convert("CMYK").save(folder / "cmyk.jpg")
    turned = Image.Exif()
    turned[0x112] = 6
    drawn().resize((100, 60)).save(folder / "turned.jpg", exif=turned)
    drawn().save(folder / "called.png", "JPEG")
    drawn().save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:900])
    (folder / "Thumbs.db").write_bytes(b"\0\1" * 40)


@pytest.fixture(scope="module")
def newcomer(tmp_path_factory: pytest.TempPathFactory) -> Newcomer:
    folder = tmp_path_factory.mktemp("handover")
    workspace, env = folder / "workspace", environment(folder)
    workspace.mkdir()
    copy_of_tracked_files(workspace, "default")
    write_data(workspace / "data")
    call(workspace, env, "gapbridge", "profile", "cpu-small")
    path = workspace / "params.yaml"
    path.write_text(yaml.safe_dump(overlay(yaml.safe_load(path.read_text()), CHANGES), sort_keys=False))
    planned = call(workspace, env, "gapbridge", "plan")
    call(workspace, env, "dvc", "repro")
    return Newcomer(workspace, planned)


@pytest.mark.slow
def test_files_of_ones_own_become_a_report(newcomer: Newcomer, said: Said) -> None:
    assert "nothing is missing" in newcomer.planned
    bad = polars.read_parquet(newcomer.path / "artifacts/ingest/images/quarantine.parquet")
    assert dict(bad.select("id", "reason").iter_rows()) == {
        "Thumbs.db": "not named like a picture",
        "cut.jpg": "the picture is truncated or damaged",
    }
    good = polars.read_parquet(newcomer.path / "artifacts/ingest/images/manifest.parquet")
    sizes = {row["id"]: (row["width"], row["height"]) for row in good.iter_rows(named=True)}
    assert len(sizes) == 123 and {"cmyk.jpg", "called.png"} < sizes.keys() and sizes["turned.jpg"] == (60, 100)
    page = (newcomer.path / "artifacts/report/index.html").read_text()
    assert "is there a house" in page and "Stage 2: the adapter learns from dialogues" in page
    status, summary = said("summary")
    assert status == 0 and "pope" in summary


@pytest.mark.slow
def test_the_model_answers_in_every_way(said: Said, tmp_path: Path) -> None:
    pictures = [f"data/questions/{number:03d}.{'png' if number % 3 else 'jpg'}" for number in range(3)]
    status, described = said("describe", *pictures)
    assert status == 0
    assert [line.partition(": ")[0] for line in described.splitlines() if line.startswith("data/")] == pictures
    assert said("predict", "data/questions", "--out", str(tmp_path / "said.jsonl"))[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert len(rows) == 40 and not [row for row in rows if "error" in row]
    assert said("export", str(tmp_path / "exported"))[0] == 0
    here, there = (
        said("ask", "--model", model, pictures[1], "what color is it")
        for model in ("artifacts/instruct", str(tmp_path / "exported"))
    )
    assert here == there and here[0] == 0


def texts_are_csv(params: dict[str, Any], path: Path) -> None:
    params["sources"]["texts"] = {"format": "csv", "path": "texts.jsonl"}


def root_is_elsewhere(params: dict[str, Any], path: Path) -> None:
    params["sources"]["root"] = "dta"


def images_are_strings(params: dict[str, Any], path: Path) -> None:
    polars.DataFrame({"image": [f"{number}.jpg" for number in range(60)]}).write_parquet(path / "data/named.parquet")
    params["sources"]["images"] = {"path": "named.parquet"}


def pictures_are_missing(params: dict[str, Any], path: Path) -> None:
    rows = json.loads((path / "data/instruct.json").read_text())
    (path / "data/lost.json").write_text(json.dumps([row | {"image": "lost-" + row["image"]} for row in rows]))
    params["sources"]["instruct"]["path"] = "lost.json"


def benchmark_is_missing(params: dict[str, Any], path: Path) -> None:
    params["sources"]["benchmark"]["path"] = "question.jsonl"


def hub_model_without_commit(params: dict[str, Any], path: Path) -> None:
    params["encoder"]["pretrained"] = "transformers:openai/clip-vit-base-patch32"


def model_without_template(params: dict[str, Any], path: Path) -> None:
    bare = path / "models/bare"
    bare.mkdir(parents=True)
    for file in (path / "artifacts/llm").iterdir():
        if file.name not in ("chat_template.jinja", "llm.json", "losses.parquet"):
            (bare / file.name).write_bytes(file.read_bytes())
    params["llm"]["pretrained"] = "models/bare"


def key_is_misspelt(params: dict[str, Any], path: Path) -> None:
    params["pretrain"]["trainig"] = params["pretrain"].pop("training")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "mistake", "remedy"),
    [
        ("ingest", texts_are_csv, "looks like jsonl, not csv; say jsonl, or leave the format out"),
        ("ingest", root_is_elsewhere, "there is no folder"),
        ("ingest", images_are_strings, "holds paths, not pictures; name their folder in sources.images.images"),
        ("ingest", pictures_are_missing, "sources.instruct.images names the folder where it is looked for"),
        ("ingest", benchmark_is_missing, "question.jsonl does not exist in"),
        ("encoder", hub_model_without_commit, "for a hub id set encoder.revision to a commit"),
        ("llm", model_without_template, "pin an instruct model in llm.pretrained"),
        ("ingest", key_is_misspelt, "pretrain.trainig: unknown key; known here:"),
    ],
)
def test_a_mistake_is_one_line_with_the_remedy(
    newcomer: Newcomer, said: Said, stage: str, mistake: Callable[[dict[str, Any], Path], None], remedy: str
) -> None:
    path = newcomer.path / "params.yaml"
    kept = path.read_text()
    params = yaml.safe_load(kept)
    mistake(params, newcomer.path)
    path.write_text(yaml.safe_dump(params))
    try:
        status, words = said(stage)
    finally:
        path.write_text(kept)
    assert status == 1 and remedy in only_error(words)


@pytest.mark.slow
def test_shards_of_another_encoder_are_refused(newcomer: Newcomer, said: Said) -> None:
    index = newcomer.path / "artifacts/embed/texts/texts/index.json"
    kept = index.read_bytes()
    index.unlink()  # DVC's cache may hold the same file
    index.write_text(json.dumps(json.loads(kept) | {"fingerprint": "0" * 64}))
    try:
        status, words = said("realign")
    finally:
        index.write_bytes(kept)
    assert status == 1 and "of encoder" in only_error(words) and only_error(words).endswith("; embed again")


def only_error(words: str) -> str:
    """The one line that tells of an error, which is the last."""
    (error,) = [line for line in words.splitlines() if line.startswith("error: ")]
    assert words.rstrip().endswith(error) and "Traceback" not in words
    return error
