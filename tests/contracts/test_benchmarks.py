"""The published benchmarks, as params, registry, modules and documentation have them."""

from importlib import import_module
from pathlib import Path

import pytest

from gapbridge.corpus.gather import gather
from gapbridge.corpus.origin import Origin
from gapbridge.errors import InputError
from gapbridge.evaluate.benchmarks import BENCHMARKS
from gapbridge.params import BENCHMARK_FORMATS

READERS = {name: benchmark.read for name, benchmark in BENCHMARKS.items()}


def test_params_name_the_benchmarks_that_there_are() -> None:
    assert tuple(BENCHMARKS) == BENCHMARK_FORMATS


def test_they_are_the_papers_eleven_in_three_families() -> None:
    families = [benchmark.family for benchmark in BENCHMARKS.values()]
    assert families == ["general"] * 4 + ["reasoning"] * 4 + ["hallucination"] * 3


@pytest.mark.parametrize("name", BENCHMARK_FORMATS)
def test_each_is_a_module_of_its_own_and_documented(name: str, checkout: Path) -> None:
    benchmark = import_module(f"gapbridge.evaluate.{name}").BENCHMARK
    assert benchmark is BENCHMARKS[name]
    documented = (checkout / "docs/benchmarks.md").read_text()
    assert f"| `{name}` | {benchmark.family} |" in documented
    assert all(f"`{protocol}`" in documented for protocol in benchmark.protocols)
    others = {protocol for one in BENCHMARKS.values() if one is not benchmark for protocol in one.protocols}
    assert benchmark.protocols and not others & set(benchmark.protocols)


@pytest.mark.parametrize("name", BENCHMARK_FORMATS)
@pytest.mark.parametrize("is_there", [False, True])
def test_files_that_are_not_there_are_one_line_with_what_to_do(name: str, is_there: bool, tmp_path: Path) -> None:
    if is_there:
        (tmp_path / "data").mkdir()
    with pytest.raises(InputError, match="data") as caught:
        list(gather(Origin("benchmark", tmp_path, "data"), name, "question", 100, benchmarks=READERS))
    message = str(caught.value)
    assert "\n" not in message and ";" in message
    assert is_there or "sources.benchmark.path: data does not exist" in message
