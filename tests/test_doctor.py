import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from gapbridge import doctor
from gapbridge.cli import cli
from gapbridge.doctor import Check

PASSWORD = "hunter2secret"


class Answers(BaseHTTPRequestHandler):
    """What MLflow's and Prefect's servers say when asked for their versions and work pools."""

    pool_status = "READY"

    def do_GET(self) -> None:
        self.answer({"/version": b"3.17.2", "/api/admin/version": b'"3.8.8"'}.get(self.path))

    def do_POST(self) -> None:
        pools = json.dumps([{"name": "gapbridge", "status": self.pool_status}]).encode()
        self.answer(pools if self.path == "/api/work_pools/filter" else None)

    def answer(self, content: bytes | None) -> None:
        self.send_response(404 if content is None else 200)
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Answers) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_a_workspace_without_services_needs_none(workspace: Path) -> None:
    found = by_name(doctor.examine(workspace, {}))
    assert {found[name].status for name in ("python", "packages", "params.yaml", "Prefect", "MLflow")} == {"well"}
    assert found["git"].status == "warning" and found["DVC remote"].status == "warning"
    assert "PostgreSQL" not in found and "S3" not in found


def test_services_that_answer_are_named_with_their_versions(workspace: Path, server: str) -> None:
    environment = {"MLFLOW_TRACKING_URI": server, "PREFECT_API_URL": f"{server}/api"}
    found = by_name(doctor.examine(workspace, environment))
    assert found["MLflow"] == Check("MLflow", "well", f"{server}, server 3.17.2")
    assert found["Prefect"] == Check("Prefect", "well", f"{server}/api, server 3.8.8")
    assert "Prefect's workers" not in found


def test_a_pool_without_a_worker_is_a_warning(workspace: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answers, "pool_status", "NOT_READY")
    found = by_name(doctor.examine(workspace, {"PREFECT_API_URL": f"{server}/api"}))
    assert found["Prefect's workers"].status == "warning" and "gapbridge" in found["Prefect's workers"].found


def test_services_that_do_not_answer_fail_without_a_secret(workspace: Path) -> None:
    environment = {
        "MLFLOW_TRACKING_URI": f"http://user:{PASSWORD}@127.0.0.1:1",
        "PREFECT_API_URL": "http://127.0.0.1:1/api",
        "PREFECT_API_KEY": PASSWORD,
        "MLFLOW_BACKEND_STORE_URI": f"postgresql+psycopg://mlflow:{PASSWORD}@127.0.0.1:1/mlflow",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": PASSWORD,
        "GAPBRIDGE_BUCKET": "gapbridge",
    }
    checks = doctor.examine(workspace, environment)
    found = by_name(checks)
    assert {found[name].status for name in ("MLflow", "Prefect", "PostgreSQL", "S3")} == {"failed"}
    assert "refused" in found["MLflow"].found and "http://***@127.0.0.1:1" in found["MLflow"].found
    assert "make stack" in found["Prefect"].remedy
    assert not doctor.all_well(checks)
    assert PASSWORD not in doctor.as_text(checks) + json.dumps(doctor.as_json(checks))


@pytest.mark.parametrize("address", ["http://[bad", "http://127.0.0.1:port", "http://a..b"])
def test_an_address_that_is_none_fails_in_one_line(workspace: Path, address: str) -> None:
    found = by_name(doctor.examine(workspace, {"MLFLOW_TRACKING_URI": address, "PREFECT_API_URL": address}))
    assert found["MLflow"].status == found["Prefect"].status == "failed"
    assert address in found["MLflow"].found and address in found["Prefect"].found


@pytest.mark.parametrize(("variable", "found"), [("GAPBRIDGE_SERVE_MAX_PROMPT_TOKENS", "valid"), ("HF_TOKEN", "***")])
def test_what_is_secret_is_told_by_the_end_of_its_name(workspace: Path, variable: str, found: str) -> None:
    assert by_name(doctor.examine(workspace, {variable: "valid"}))["params.yaml"].found == found


def test_a_version_that_breaks_in_silence_is_named(
    workspace: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("site") / "prefect-3.9.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: prefect\nVersion: 3.9.0\n")
    monkeypatch.syspath_prepend(str(folder.parent))
    found = by_name(doctor.examine(workspace, {}))["packages ops"]
    assert found.status == "failed" and "prefect 3.9.0 does not fit <3.9,>=3.8.8" in found.found


def test_what_is_missing_fails_where_stages_need_it(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.metadata.version

    def version(name: str) -> str:
        if name in ("torch", "prefect", "dvc-s3"):
            raise doctor.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    found = by_name(doctor.examine(workspace, {}))
    assert found["packages train"].status == "failed" and "torch" in found["packages train"].found
    assert found["packages ops"].status == "warning"
    assert "missing: dvc-s3, prefect" in found["packages ops"].found


def test_params_disk_and_readable_keys(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workspace / "params.yaml").write_text("seed: many\n")
    (workspace / ".dvc").mkdir()
    (workspace / ".dvc" / "config.local").write_text(
        "[core]\n    remote = here\n['remote \"here\"']\n    url = /none\n"
    )
    (workspace / ".dvc" / "config.local").chmod(0o644)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda place: SimpleNamespace(free=5 << 20))
    found = by_name(doctor.examine(workspace, {}))
    assert found["params.yaml"].status == "failed" and "seed" in found["params.yaml"].found
    assert found["disk of the workspace"].status == "failed"
    assert found["DVC's keys"].remedy.startswith("chmod 600")
    assert found["DVC remote"].status == "warning" and "/none is no folder yet" in found["DVC remote"].found


def test_the_command_prints_lines_or_json_and_its_status_says_it(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q"], cwd=workspace, check=True)
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    done = CliRunner().invoke(cli, ["doctor", "--json"])
    answer = json.loads(done.stdout)
    assert done.exit_code == (0 if answer["well"] else 1)
    assert {"name", "status", "found", "remedy"} == set(answer["checks"][0])
    (workspace / "params.yaml").unlink()
    done = CliRunner().invoke(cli, ["doctor"])
    assert done.exit_code == 1
    (line,) = [line for line in done.stdout.splitlines() if "params.yaml" in line]
    assert line.startswith("failed   params.yaml") and "gapbridge profile default" in line
