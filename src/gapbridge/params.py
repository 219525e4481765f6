"""What params.yaml may say: one frozen section a stage, units in the names, unknown keys refused."""

import posixpath
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from gapbridge.errors import InputError

_SHOWN_CHARACTERS = 60


def _template(text: str) -> str:
    if "{}" not in text:
        raise ValueError("needs {} where the text belongs")
    return text


def _worded(text: str) -> str:
    if not text.strip():
        raise ValueError("needs some words")
    return text


Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0)]
Template = Annotated[str, AfterValidator(_template)]
Worded = Annotated[str, AfterValidator(_worded)]


BenchmarkFormat = Literal[
    "mme",
    "mmstar",
    "scienceqa",
    "realworldqa",
    "mmmu",
    "mmmu_pro",
    "visulogic",
    "logicvista",
    "crpe",
    "pope_official",
    "hallusionbench",
]
BENCHMARK_FORMATS: tuple[str, ...] = get_args(BenchmarkFormat)
"""The published benchmarks (`evaluate/benchmarks.py`): each is read in its own layout."""

Format = Literal[
    "world",
    "jsonl",
    "csv",
    "lines",
    "parquet",
    "datasets",
    "folder",
    "imagefolder",
    "webdataset",
    "llava",
    "internvl",
    "unpaired",
    "pope",
    "embeddings",
    BenchmarkFormat,
]
"""How a source's rows are written (docs/data.md); `world` draws them, `embeddings` are vectors with their texts."""
VECTORS = "vectors:"
"""How `encoder.pretrained` begins where there is no encoder: what follows names the one that made the vectors."""
EMBEDDED_SETS = ("texts", "images", "instruct", "probe", "benchmark")
"""The sets whose records become vectors."""


class Section(BaseModel):
    """A part of params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Source(Section):
    """Where one set of records comes from.

    `world` draws them; the other formats read the user's file or folder at `path`, relative to
    `sources.root`. `images` is the folder that the image names in the file are relative to.
    """

    format: Format | None = None
    """None looks at the content."""
    path: str | None = None
    images: str | None = None
    vectors: str | None = None
    """The folder or file with a vector for each row, where they are brought along."""
    text_field: Worded | None = None
    """What the rows call their text, where it is none of the usual names."""
    image_field: Worded | None = None
    rows: Positive | None = None
    """Of a user's file, at most so many, chosen by chance."""
    weight: Annotated[float, Field(ge=1e-6, le=1e6)] | None = None
    """Of several sources of one set, its share of the rows; the sources without one are taken whole."""
    captions: bool = False
    """Keep the captions of an `images` source, for the paired control alone."""
    split: Literal["benchmark", "dev"] = "benchmark"
    """Which held-out scenes of the world a `benchmark` source asks about."""

    @property
    def vectors_path(self) -> str | None:
        """Where its vectors lie, if they are brought along."""
        return self.path if self.format == "embeddings" else self.vectors

    @model_validator(mode="after")
    def _whole(self) -> "Source":
        if self.format == "world" and self.rows is None:
            raise ValueError("format world needs rows: how many to draw")
        if self.format != "world" and self.path is None:
            raise ValueError(f"format {self.format or 'of a file'} needs path: the file or folder to read")
        if self.format in ("world", "embeddings") and self.vectors is not None:
            raise ValueError(f"format {self.format} takes no vectors of another place; leave vectors out")
        return self


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


def _files_alone(sources: list[Source]) -> list[Source]:
    if len(sources) > 1 and any(source.format == "world" for source in sources):
        raise ValueError("format world stands alone, not in a list of sources")
    paths = [posixpath.normpath(source.path or "") for source in sources]
    if twice := next((path for path in paths if paths.count(path) > 1), None):
        raise ValueError(f"{twice} is named twice; name each file once (rows and weight say how much of it)")
    return sources


Sources = Annotated[list[Source], Field(min_length=1), BeforeValidator(_listed), AfterValidator(_files_alone)]
"""One source, or a list of several that are mixed."""


class SourcesParams(Section):
    """The outside data, one source or several a set."""

    root: str
    texts: Sources
    images: Sources
    encoder: Sources | None
    llm: Sources | None
    instruct: Sources
    probe: Sources
    benchmark: Sources

    def of(self, set_name: str) -> list[Source]:
        """The sources of one set, in order; none where it is null."""
        return getattr(self, set_name) or []


class IngestParams(Section):
    """What makes a row acceptable."""

    max_bad_fraction: Fraction
    """Of a set's rows; one more bad row than that stops the stage."""
    min_rows: Positive
    max_image_pixels: Positive
    """A larger picture is quarantined before it is decoded."""


class Optimiser(Section):
    """AdamW with a linear warm-up and a cosine down to zero. Steps are optimiser steps."""

    steps: Positive | None = None
    """None means one pass over the rows."""
    batch_size: Positive
    learning_rate: Rate
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_fraction: Fraction
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.98
    clip_norm: Rate = 1.0


class EncoderParams(Section):
    """The contrastive dual encoder: a pretrained one, or a tiny one trained here."""

    pretrained: str | None
    """`local-dir:PATH`, `hf-hub:OWNER/NAME`, `ARCHITECTURE/TAG`, `transformers:…`, `llm2clip:…` (docs/data.md), or
    `vectors:` and the name of whatever made the vectors that the sources bring along."""
    revision: str | None
    text_template: Template
    """`{}` stands for the text."""
    threads: Positive
    width: Positive
    image_size: Positive
    context_length: Positive
    vocabulary_size: Positive
    logit_scale: Rate
    training: Optimiser
    group_rows: Positive
    """So many consecutive pairs stay together in a batch, for sources that write hard negatives side by side."""
    wording_fraction: Fraction
    """Of the steps; in the first ones both towers also learn to say which tokens the text holds."""
    wording_weight: Annotated[float, Field(ge=0)]
    consistency_weight: Annotated[float, Field(ge=0)]
    """Of CyCLIP's two terms, which ask both towers for the same geometry."""
    snapshot_count: Positive

    @property
    def is_brought(self) -> bool:
        """Whether there is no encoder, since vectors are brought along."""
        return (self.pretrained or "").startswith(VECTORS)


class LlmParams(Section):
    """The language model: a pretrained one, or a tiny one trained here."""

    pretrained: str | None
    revision: str | None
    threads: Positive
    hidden_size: Positive
    intermediate_size: Positive
    layers: list[Literal["conv", "full_attention"]]
    attention_heads: Positive
    conv_kernel: Positive
    """Tokens that a `conv` layer sees at once; five bind "a red circle on the left" in the first layer."""
    vocabulary_size: Positive
    context_weight: Annotated[float, Field(ge=0)]
    """Weight of each word of contexts and questions as a target; an answer weighs 1 in all."""
    training: Optimiser


class EmbedParams(Section):
    """How records become vectors."""

    threads: Positive
    batch_size: Positive
    shard_rows: Positive


class RealignParams(Section):
    """How the text side is moved onto the image side."""

    method: Literal["none", "anchor", "mean_shift", "anchor_trace", "realign", "c3", "blockwise"]
    holdout: Fraction
    """Of the groups; kept out of the statistics and used to measure the gap."""
    centroid_iterations: Positive
    """Centroid steps of `realign` and `blockwise`; more than one end where the held-out gap stops falling."""
    noise: Annotated[float, Field(ge=0)]
    """Root mean square length of the noise of `c3`."""


class GeometryParams(Section):
    """How the gap is measured and drawn."""

    rows: Annotated[int, Field(gt=1)]
    """At most this many rows a side enter the pictures."""


class AdapterParams(Section):
    """The two-layer network between the vector and the language model."""

    hidden_size: Positive
    visual_tokens: Positive
    expansion: Literal["heads", "repeat"]
    """One linear head a token, or the same projected vector in every place."""


class Checkpointing(Section):
    """What happens between the steps."""

    every_steps: Positive
    heldout_every_steps: Positive
    heldout_rows: Positive


Precision = Literal["auto", "bf16", "fp32"]
"""What products are made in; `auto` is bf16 on a GPU and fp32 on the CPU. What learns is kept in fp32 always."""


class PretrainParams(Section):
    """Stage 1: the adapter learns to let a frozen language model read vectors (arXiv 2602.07026 §5)."""

    enabled: bool
    source: Literal["aligned_text", "paired_image"]
    instruction: Worded
    noise: Annotated[float, Field(ge=0)]
    """Length of Gaussian noise on every vector, over the spread √T of the images; 0 is the paper's own recipe."""
    threads: Positive
    precision: Precision
    gradient_checkpointing: bool
    """Layers compute their inner states again in the backward pass: less memory, about a third more arithmetic."""
    adapter: AdapterParams
    training: Optimiser
    checkpoint: Checkpointing


class LoraParams(Section):
    """Low-rank additions to the language model's linear layers (arXiv 2106.09685); read where `tune` is `lora`."""

    rank: Positive
    alpha: Rate
    """The additions are multiplied with alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    targets: Literal["all-linear"] | Annotated[list[Worded], Field(min_length=1)]
    """Last parts of the layers' names, such as q_proj; never the head, the adapter or the vision tower."""


class InstructParams(Section):
    """Stage 2: adapter and language model learn to answer about pictures."""

    source: Literal["real_image", "aligned_text"]
    tune: Literal["full", "lora", "frozen"]
    """What of the language model learns beside the adapter: all of it, low-rank additions to it, or nothing."""
    lora: LoraParams
    threads: Positive
    precision: Precision
    gradient_checkpointing: bool
    llm_learning_rate: Rate
    """`training.learning_rate` is the adapter's."""
    training: Optimiser
    checkpoint: Checkpointing


class EvaluateParams(Section):
    """Who is asked, and how."""

    model: str | None
    """None asks the model of `instruct`; else another image-text-to-text model as a reference: a folder or hub id."""
    revision: str | None
    """The hub's commit of that model."""
    threads: Positive
    batch_size: Positive
    max_new_tokens: Positive
    """Of an answer, where its benchmark's protocol says nothing else."""


class ReportParams(Section):
    """What the page shows."""

    gallery: Positive
    register_as: str | None
    """Name under which the model enters the MLflow registry; null registers nothing."""


class PromoteParams(Section):
    """The gates before a registered model becomes the champion; scores and rates are fractions of 1."""

    require: Literal["not_worse", "better"]
    """Of the average against the champion's, by its paired bootstrap interval."""
    minimum: dict[str, Fraction]
    """Least score by benchmark."""
    max_drop: Fraction
    """The most that any benchmark may lose against the champion."""
    max_gap_over_floor: Rate
    """The most that the held-out gap may be, over its sampling floor."""
    yes_rate: Annotated[list[Fraction], Field(min_length=2, max_length=2)]
    """The band for the share of yes in benchmarks of yes and no."""
    require_clean: bool
    """Whether the code must have been committed when the model was made."""


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    sources: SourcesParams
    ingest: IngestParams
    encoder: EncoderParams
    llm: LlmParams
    embed: EmbedParams
    realign: RealignParams
    geometry: GeometryParams
    pretrain: PretrainParams
    instruct: InstructParams
    evaluate: EvaluateParams
    report: ReportParams
    promote: PromoteParams

    @model_validator(mode="after")
    def _vectors_or_encoder(self) -> "Params":
        if self.encoder.is_brought and not (self.encoder.pretrained or "").removeprefix(VECTORS).strip():
            raise ValueError("encoder.pretrained: say what made the vectors, vectors:NAME")
        for name in ("texts", "images", "encoder", "llm", "instruct", "probe", "benchmark"):
            brought = [source.vectors_path is not None for source in self.sources.of(name)]
            if any(brought) and name not in EMBEDDED_SETS:
                raise ValueError(f"sources.{name}: takes no vectors; leave them out")
            if any(brought) and not self.encoder.is_brought:
                raise ValueError(f"sources.{name} brings vectors along: set encoder.pretrained to vectors:NAME")
            if self.encoder.is_brought and name in EMBEDDED_SETS and not all(brought):
                wanted = f"name them in sources.{name}.vectors, or pin an encoder"
                raise ValueError(f"encoder.pretrained is {self.encoder.pretrained}: sources.{name} has none; {wanted}")
        return self


def load_params(path: Path) -> Params:
    """Read and check a params.yaml.

    Raises InputError naming the first wrong key, its value and what it may be.
    """
    if not path.exists():
        raise InputError(f"{path}: missing; write it with `gapbridge profile default`")
    return check_params(read_yaml(path), path)


def read_yaml(path: Path) -> Any:
    """The parsed content of a YAML file. Raises InputError when it cannot be read or is not YAML in UTF-8."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); put a readable file there") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}; mend it there") from error


def check_params(content: Any, path: Path) -> Params:
    """`content`, as read from the YAML file `path`, checked.

    Raises InputError naming the first wrong key, its value and what it may be.
    """
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold one section a stage; write it with `gapbridge profile default`")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        errors = error.errors()  # a misspelt key makes two: the one that is there tells more than the one that is not
        first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])
        key = ".".join(_shown(content, first["loc"]))
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise InputError(f"{path}: {key + ': ' if key else ''}{_reason(first)}{more}") from error


def _reason(error: ErrorDetails) -> str:
    """What is wrong with one value, and what it was."""
    if error["type"] == "extra_forbidden":
        return f"unknown key; known here: {', '.join(_section(error['loc'][:-1]).model_fields)}"
    reason, value = error["msg"].removeprefix("Value error, "), error["input"]
    if isinstance(value, dict | Section):
        return reason
    if error["type"] in ("float_type", "int_type") and isinstance(value, str):
        reason += ", and YAML reads this as text; write numbers without quotes, 1e-3 as 1.0e-3"
    return f"{reason}, found {repr(value)[:_SHOWN_CHARACTERS]}"


def _shown(content: Any, keys: tuple[int | str, ...]) -> Iterator[str]:
    """The keys as the file has them: what stands alone there is no list of one."""
    for key in keys:
        if isinstance(key, int) and isinstance(content, dict):
            continue
        yield str(key)
        content = content.get(key) if isinstance(content, dict) else None


def _section(keys: tuple[int | str, ...]) -> type[Section]:
    """The section of params.yaml that lies at `keys`."""
    section: type[Section] = Params
    for key in keys:
        if isinstance(key, str):
            section = next(_sections_in(section.model_fields[key].annotation))
    return section


def _sections_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from _sections_in(inner)
