"""The services that the environment and DVC's settings name: do they answer, and to whom we say we are?"""

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

Status = Literal["well", "warning", "failed"]
_SECONDS = 4
_START = "`make stack` starts one"


@dataclass(frozen=True)
class Check:
    """One thing looked at. A warning stops nothing; what failed will stop a run. `remedy` says what to do."""

    name: str
    status: Status
    found: str
    remedy: str = ""


def examine(workspace: Path, environment: Mapping[str, str]) -> Iterator[Check]:
    """A check for each service that is configured, and what stands in for one that is not."""
    yield from _prefect(environment)
    yield _mlflow(environment)
    yield from _databases(environment)
    if any(environment.get(name) for name in ("AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL", "GAPBRIDGE_BUCKET")):
        endpoint = environment.get("AWS_ENDPOINT_URL") or environment.get("MLFLOW_S3_ENDPOINT_URL")
        keys = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
        yield _bucket("S3", environment.get("GAPBRIDGE_BUCKET"), endpoint, keys)
    yield _dvc_remote(workspace)


def _prefect(environment: Mapping[str, str]) -> Iterator[Check]:
    address = environment.get("PREFECT_API_URL", "").rstrip("/")
    if not address:
        yield Check("Prefect", "well", "no server named: each flow starts one of its own")
        return
    headers = {}
    if key := environment.get("PREFECT_API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    elif pair := environment.get("PREFECT_API_AUTH_STRING"):
        headers["Authorization"] = _basic(pair)
    try:
        version = _ask(f"{address}/admin/version", headers)
        pools = _ask(f"{address}/work_pools/filter", headers, {})
    except (OSError, ValueError) as error:
        yield Check("Prefect", "failed", f"{address}: {_said(error)}", f"{_START}, or unset PREFECT_API_URL")
        return
    yield Check("Prefect", "well", f"{address}, server {version}")
    for pool in pools:
        if pool["status"] == "NOT_READY":
            remedy = f"`make stack`, or `prefect worker start --pool {pool['name']}`"
            yield Check("Prefect's workers", "warning", f"nobody works for the pool {pool['name']}", remedy)


def _mlflow(environment: Mapping[str, str]) -> Check:
    address = environment.get("MLFLOW_TRACKING_URI", "").rstrip("/")
    if not address:
        return Check("MLflow", "well", "no server named: runs go to mlflow.db in the workspace")
    if not re.match(r"https?://", address):
        return Check("MLflow", "well", f"{address}, no server")
    try:
        with _open(f"{address}/version", {}) as reply:
            return Check("MLflow", "well", f"{address}, server {reply.read(20).decode(errors='replace')}")
    except (OSError, ValueError) as error:
        return Check("MLflow", "failed", f"{address}: {_said(error)}", f"{_START}, or unset MLFLOW_TRACKING_URI")


def _databases(environment: Mapping[str, str]) -> Iterator[Check]:
    """PostgreSQL, where a variable that Prefect's or MLflow's server reads names it."""
    for name in ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "MLFLOW_BACKEND_STORE_URI"):
        address = environment.get(name, "")
        if not address.startswith("postgresql"):
            continue
        if find_spec("psycopg") is None:
            yield Check("PostgreSQL", "failed", f"{name} names it, and psycopg is missing", "`make setup`")
            continue
        yield _database(name, address)


def _database(name: str, address: str) -> Check:
    import psycopg

    try:
        with psycopg.connect(re.sub(r"^postgresql\+\w+:", "postgresql:", address), connect_timeout=_SECONDS) as session:
            version = session.info.parameter_status("server_version")
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        return Check("PostgreSQL", "failed", f"{name} ({address}): {reason}", f"{_START}; or mend {name}")
    return Check("PostgreSQL", "well", f"{address}, {version}")


def _bucket(name: str, bucket: str | None, endpoint: str | None, keys: tuple[str | None, str | None]) -> Check:
    """Ask for the bucket, or for the list of buckets where none is named, with the keys."""
    if find_spec("botocore") is None:
        return Check(name, "failed", "botocore is missing", "`make setup`")
    import botocore.exceptions
    import botocore.session
    from botocore.config import Config

    where = f"{endpoint or 'AWS'}{f', bucket {bucket}' if bucket else ''}"
    settings = Config(connect_timeout=_SECONDS, read_timeout=_SECONDS, retries={"total_max_attempts": 1})
    try:
        client = botocore.session.get_session().create_client(
            "s3", endpoint_url=endpoint, config=settings, aws_access_key_id=keys[0], aws_secret_access_key=keys[1],
            region_name="us-east-1" if endpoint else None,
        )  # fmt: skip
        client.head_bucket(Bucket=bucket) if bucket else client.list_buckets()
    except botocore.exceptions.ClientError as error:
        reason = {"403": "the keys are refused", "404": "there is no such bucket"}.get(error.response["Error"]["Code"])
        return Check(name, "failed", f"{where}: {reason or error}", "mend the keys or the bucket's name")
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        return Check(name, "failed", f"{where}: {_said(error)}", _START)
    return Check(name, "well", where)


def _dvc_remote(workspace: Path) -> Check:
    if find_spec("dvc") is None:
        return Check("DVC remote", "warning", "DVC is not installed", "`make setup`; the stages run without it")
    from dvc.config import Config, ConfigError

    try:
        config = Config(str(workspace / ".dvc"))
    except ConfigError as error:
        return Check(
            "DVC remote", "failed", f"{workspace / '.dvc'}: {_said(error)}", "mend .dvc/config or config.local"
        )
    name = config["core"].get("remote")
    if name is None or name not in config["remote"]:
        return Check("DVC remote", "warning", "none: outs lie in this machine's cache alone", f"{_START} on S3")
    remote: Mapping[str, Any] = config["remote"][name]
    scheme, found, rest = str(remote["url"]).partition("://")
    if not found:
        exists = Path(scheme).is_dir()
        return Check(
            "DVC remote", "well" if exists else "warning", f"{name}: {scheme}{'' if exists else ' is no folder yet'}"
        )
    if scheme != "s3":
        return Check("DVC remote", "well", f"{name}: {scheme}, not tried", "")
    keys = remote.get("access_key_id"), remote.get("secret_access_key")
    check = _bucket("DVC remote", rest.partition("/")[0], remote.get("endpointurl"), keys)
    # `dvc repro` does without; only pushing and pulling fail.
    return replace(check, status="warning") if check.status == "failed" else check


def _open(address: str, headers: Mapping[str, str], content: Any = None) -> Any:
    """The answer to a request; raises OSError for any failure. A user in the address goes into a header."""
    parts = urlsplit(address)
    user, _, place = parts.netloc.rpartition("@")
    own = {"Content-Type": "application/json", **headers}
    if user:
        own["Authorization"] = _basic(unquote(user))
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=place)), body, own)
    try:
        return urllib.request.urlopen(request, timeout=_SECONDS)
    except HTTPException as error:
        raise OSError(f"does not speak HTTP ({type(error).__name__})") from error


def _basic(pair: str) -> str:
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _ask(address: str, headers: Mapping[str, str], content: Any = None) -> Any:
    with _open(address, headers, content) as reply:
        return json.load(reply)


def _said(error: BaseException) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"answers with status {error.code}"
    return " ".join(str(getattr(error, "reason", None) or error).split())
