import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from gapbridge.errors import ArtifactError, GapbridgeError, InputError
from gapbridge.model_package import register
from gapbridge.operations_cli import lineage, promote, rollback
from gapbridge.promotion import decide
from gapbridge.promotion.decide import Decision, Rules
from gapbridge.promotion.gates import Thresholds
from gapbridge.promotion.ledger import Ledger, Record
from gapbridge.registry import Registry

from .conftest import NAME, Register, git


def rules(probe: Any = lambda package: None, require_clean: bool = True) -> Rules:
    return Rules(Thresholds("not_worse", {}, 0.05, 2.0, (0.2, 0.8)), require_clean, 0, probe)


def champion(home: Path) -> int | None:
    registry = Registry(home)
    found = registry.aliased(NAME)
    return found.number if found else None


def records(home: Path) -> list[Record]:
    registry = Registry(home)
    return Ledger(registry, NAME).records()


def judged(home: Path, reference: str = NAME, **settings: Any) -> Decision:
    return decide.promote(home, reference, rules(**settings))


def test_a_better_model_becomes_champion_and_the_record_says_why(home: Path, made: Register) -> None:
    made(right=30)
    first = judged(home)
    assert (first.promoted, first.number, champion(home)) == (True, 1, 1)
    made(right=36)
    second = judged(home)
    assert (second.promoted, second.champion, champion(home)) == (True, 1, 2)
    assert second.comparison is not None and second.comparison.average is not None
    assert second.comparison.average.difference == pytest.approx(0.15)
    one, two = records(home)
    assert (one.state, one.before, one.after, two.before, two.after) == ("promoted", None, 1, 1, 2)
    registry = Registry(home)
    run = registry.client.get_run(two.run_id)
    assert sorted(file.path for file in registry.client.list_artifacts(two.run_id)) == [
        "decision.json",
        "decision.md",
    ]
    assert "all" in registry.resolve("tiny@champion").tags["decision.2"]
    assert run.info.status == "FINISHED" and run.data.tags["candidate"] == "2"


def test_a_worse_model_is_refused_and_the_alias_stays(home: Path, made: Register) -> None:
    made(right=36)
    judged(home)
    made(right=28)
    decision = judged(home)
    assert not decision.promoted and champion(home) == 1
    assert [gate.name for gate in decision.gates if not gate.passed] == ["drop pope", "average"]
    assert records(home)[-1].state == "refused" and "drop pope" in records(home)[-1].reason
    assert "| drop pope | **fail** |" in decision.markdown()


def test_a_dry_run_writes_nothing(home: Path, made: Register) -> None:
    made()
    decision = decide.promote(home, NAME, rules(), dry_run=True)
    assert decision.promoted and decision.number is None and "would be" in decision.verdict
    assert champion(home) is None and records(home) == []
    registry = Registry(home)
    assert registry.names() == [NAME]


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        ({"gap": 0.3}, "held-out gap"),
        ({"yes_rate": 0.95}, "yes-rate pope"),
    ],
)
def test_each_figure_has_its_gate(home: Path, made: Register, change: dict[str, Any], gate: str) -> None:
    made(**change)
    assert [one.name for one in judged(home).gates if not one.passed] == [gate]


def test_a_probe_that_answers_otherwise_refuses(home: Path, made: Register) -> None:
    made()
    decision = judged(home, probe=lambda package: "1 of 3 answers differs")
    assert [(one.name, one.figure) for one in decision.gates if not one.passed] == [
        ("probe", "1 of 3 answers differs"),
    ]


def test_code_that_was_not_committed_refuses_unless_that_is_allowed(home: Path, made: Register) -> None:
    (home / "new.py").write_text("")
    made()
    assert [one.name for one in judged(home).gates if not one.passed] == ["lineage"]
    assert judged(home, require_clean=False).promoted


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("instruct", "dvc.lock is of another model"),
        ("evaluate", "dvc.lock: evaluate read another artifacts/instruct than is there"),
    ],
)
def test_a_lock_that_does_not_lead_to_the_model_refuses(home: Path, made: Register, entry: str, problem: str) -> None:
    """As stages leave it that ran without DVC after a `dvc repro`."""
    made()
    lock = yaml.safe_load((home / "dvc.lock").read_text())
    (lock["stages"][entry].get("deps") or lock["stages"][entry]["outs"])[0]["md5"] = "another"
    (home / "dvc.lock").write_text(yaml.safe_dump(lock))
    register(home, NAME, home / "artifacts/instruct", home / "artifacts/report/model_card.md")
    fallen = [(one.name, one.figure) for one in judged(home).gates if not one.passed]
    assert fallen == [("lineage", problem)]


def test_a_damaged_package_is_an_error(home: Path, made: Register) -> None:
    made()
    registry = Registry(home)
    source = Path(registry.client.get_model_version(NAME, "1").source.removeprefix("file://"))
    (source / "config.json").write_text('{"right": 40}')
    with pytest.raises(ArtifactError, match="tiny version 1: its files are not those that were registered"):
        judged(home)


def test_two_promotions_at_once_end_with_one_winner(home: Path, made: Register) -> None:
    made()
    made()
    program = (
        "import sys, time; from pathlib import Path\n"
        "from gapbridge.promotion import decide; from gapbridge.promotion.decide import Rules\n"
        "from gapbridge.promotion.gates import Thresholds; from gapbridge.errors import InputError\n"
        "def wait(package):\n"
        "    print('judging', flush=True); sys.stdin.readline()\n"
        "rules = Rules(Thresholds('not_worse', {}, .05, 2., (.2, .8)), True, 0, wait)\n"
        "try: print(decide.promote(Path.cwd(), sys.argv[1], rules).verdict)\n"
        "except InputError as error: print('error:', error)\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", program, f"tiny/{number}"], cwd=home, text=True,
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for number in (1, 2)
    ]  # fmt: skip
    for one in both:
        assert one.stdout is not None and one.stdout.readline() == "judging\n"
    for one in both:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    said = sorted(one.communicate()[0].strip() for one in both)
    assert said[0].startswith("error: tiny: ") and "is champion" in said[1]
    winner = champion(home)
    assert f"version {winner} is champion" in said[1]
    assert [one.after for one in records(home) if one.state == "promoted"] == [winner]


def test_a_claim_of_a_process_that_died_is_taken_over(
    home: Path, made: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    made()
    registry = Registry(home)
    Ledger(registry, NAME).claim("promote", registry.resolve(NAME))
    with pytest.raises(InputError, match="decision 1 is under way"):
        judged(home)
    monkeypatch.setattr("gapbridge.promotion.ledger.PENDING_SECONDS", 0)
    assert judged(home).number == 2
    assert [one.state for one in records(home)] == ["abandoned", "promoted"]


def test_a_claim_that_was_taken_over_moves_nothing(home: Path, made: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    made()
    registry = Registry(home)
    ledger, version = Ledger(registry, NAME), registry.resolve(NAME)
    slow = ledger.claim("promote", version)
    monkeypatch.setattr("gapbridge.promotion.ledger.PENDING_SECONDS", 0)
    ledger.claim("promote", version)
    with pytest.raises(InputError, match="decide again"):
        ledger.move(slow, 1, "because")
    assert champion(home) is None
    assert [one.state for one in records(home)] == ["lost", "pending"]


def test_a_champion_that_changed_while_the_gates_judged_is_not_replaced(home: Path, made: Register) -> None:
    made()
    made()
    registry = Registry(home)

    def meanwhile(package: Path) -> None:
        registry.client.set_registered_model_alias(NAME, "champion", "2")

    with pytest.raises(InputError, match="tiny: version 2 became champion meanwhile; decide again"):
        judged(home, "tiny/1", probe=meanwhile)
    assert champion(home) == 2 and [one.state for one in records(home)] == ["lost"]


def test_an_alias_moved_by_hand_stops_the_claim(home: Path, made: Register) -> None:
    made()
    made()
    registry = Registry(home)
    ledger = Ledger(registry, NAME)
    claimed = ledger.claim("promote", registry.resolve("tiny/1"))
    registry.client.set_registered_model_alias(NAME, "champion", "2")
    with pytest.raises(InputError, match="champion changed meanwhile"):
        ledger.move(claimed, 1, "because")
    assert champion(home) == 2 and records(home)[-1].state == "lost"


def test_rollback_goes_back_step_by_step_and_is_recorded(home: Path, made: Register) -> None:
    for right in (30, 32, 34):
        made(right=right)
        judged(home)
    assert champion(home) == 3
    assert decide.rollback(home, NAME, "answers slowly", dry_run=True).candidate == 2
    assert champion(home) == 3
    assert [decide.rollback(home, NAME, "answers slowly").candidate for _ in range(2)] == [2, 1]
    assert champion(home) == 1
    assert [one.state for one in records(home)[-2:]] == ["rolled back"] * 2
    assert "answers slowly" in records(home)[-1].reason
    with pytest.raises(InputError, match="no champion before"):
        decide.rollback(home, NAME, "again")
    judged(home, "tiny/3")
    assert decide.rollback(home, NAME, "again").candidate == 1


def test_an_alias_set_without_a_record_is_gone_back_to_and_from(home: Path, made: Register) -> None:
    for right in (30, 32, 34, 34):
        made(right=right)
    judged(home, "tiny/1")
    judged(home, "tiny/2")
    registry = Registry(home)
    registry.client.set_registered_model_alias(NAME, "champion", "3")
    assert decide.rollback(home, NAME, "a process died before it wrote its record").candidate == 2
    registry.client.set_registered_model_alias(NAME, "champion", "3")
    assert judged(home, "tiny/4").promoted
    assert [decide.rollback(home, NAME, "slow").candidate for _ in range(3)] == [3, 2, 1]


def test_the_commands_end_with_a_status_that_scripts_can_read(home: Path, made: Register) -> None:
    made(right=36)
    first = CliRunner().invoke(promote, ["--json"], catch_exceptions=False)
    assert first.exit_code == 0 and json.loads(first.output)["promoted"] is True
    made(right=20)
    assert CliRunner().invoke(promote, [], catch_exceptions=False).exit_code == 3
    again = CliRunner().invoke(promote, ["tiny/1"], catch_exceptions=False)
    assert again.exit_code == 0 and "version 1 is the champion already" in again.output
    assert len(records(home)) == 2
    with pytest.raises(GapbridgeError, match="no champion before"):
        CliRunner().invoke(rollback, [NAME], catch_exceptions=False)
    with pytest.raises(GapbridgeError, match="big@champion: not in the registry"):
        CliRunner().invoke(rollback, ["big"], catch_exceptions=False)
    with pytest.raises(GapbridgeError, match="big@champion: not in the registry, whose models are tiny"):
        CliRunner().invoke(lineage, ["big@champion"], catch_exceptions=False)


def test_lineage_leads_back_to_all_of_it(home: Path, made: Register) -> None:
    made()
    judged(home)
    said = CliRunner().invoke(lineage, ["--json"], catch_exceptions=False).output
    found = json.loads(said)
    assert (found["name"], found["version"], found["aliases"]) == (NAME, 1, ["champion"])
    assert found["sets"] == {"texts": {"rows": 7, "groups": 5}} and found["alignment"]["scale"] == 0.9
    assert found["stages"]["artifacts/realign"] == "realignrealign" and found["params"]["seed"] == 0
    assert found["tags"].keys() >= {"dvc.lock", "git.commit", "git.dirty", "environment.lock", "model.digest"}
    assert found["rebuildable"] is True and found["decisions"][0]["state"] == "promoted"
    text = CliRunner().invoke(lineage, [f"{NAME}/1"], catch_exceptions=False).output
    assert "can make it again, byte for byte" in text and "0.7500 (yes-no/1)" in text


@pytest.mark.parametrize("damaged", ["evidence/metrics/ingest.json", "dvc.lock", "params.yaml"])
def test_lineage_and_a_comparison_do_not_take_what_was_changed(home: Path, made: Register, damaged: str) -> None:
    made()
    judged(home)
    (path,) = (home / "mlartifacts").rglob(f"model/{damaged}")
    path.write_bytes(path.read_bytes() + b"\n")
    part = damaged.split("/")[0]
    with pytest.raises(ArtifactError, match=f"tiny version 1: {part} is not what was registered"):
        CliRunner().invoke(lineage, [f"{NAME}@champion"], catch_exceptions=False)
    if part == "evidence":
        made()
        with pytest.raises(ArtifactError, match="tiny version 1: evidence"):
            judged(home)


def test_lineage_says_what_stands_in_the_way(home: Path, made: Register) -> None:
    made()
    (home / "requirements.lock").write_text("torch==2\n")
    (home / "params.yaml").write_text("seed: 1\n")
    git(home, "commit", "-qam", "later")
    found = json.loads(CliRunner().invoke(lineage, [NAME, "--json"], catch_exceptions=False).output)
    assert found["rebuildable"] is False
    assert [one.split(":")[0] for one in found["obstacles"]] == ["code", "params.yaml", "requirements.lock"]
