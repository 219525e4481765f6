"""Where a stack lies, its ports and its secrets: one folder, remembered from start to start."""

import json
import os
import secrets
import shlex
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

HOST = "127.0.0.1"
PREFERRED_PORTS = {"postgres": 5432, "s3": 9000, "mlflow": 5000, "prefect": 4200}
DATABASES = ("prefect", "mlflow")
ADMINISTRATOR = "gapbridge"
BUCKET = "gapbridge"
WORK_POOL = "gapbridge"
_FILE = "settings.json"
_SECRETS = ("administrator_password", "prefect_password", "mlflow_password", "s3_key", "s3_secret")


class StackError(Exception):
    """The stack cannot do what was asked; one line: what, where, what to do."""


@dataclass(frozen=True)
class Settings:
    """A stack in `home` for the pipeline in `checkout`."""

    home: Path
    checkout: Path
    ports: dict[str, int]
    secrets: dict[str, str]

    def log(self, service: str) -> Path:
        """The file that takes what a service says."""
        return self.home / "logs" / f"{service}.log"

    def process_file(self, service: str) -> Path:
        """The file that remembers a service's process."""
        return self.home / "processes" / f"{service}.json"

    def address(self, service: str) -> str:
        """Where a service answers."""
        scheme = "" if service == "postgres" else "http://"
        return f"{scheme}{HOST}:{self.ports[service]}"

    def database(self, name: str, driver: str) -> str:
        """SQLAlchemy's address of a database, password included."""
        password = self.secrets[f"{name}_password"]
        return f"postgresql+{driver}://{name}:{password}@{HOST}:{self.ports['postgres']}/{name}"

    def s3_environment(self) -> dict[str, str]:
        """What boto, s3fs, DVC and MLflow read to reach the bucket."""
        return {
            "AWS_ACCESS_KEY_ID": self.secrets["s3_key"],
            "AWS_SECRET_ACCESS_KEY": self.secrets["s3_secret"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.address("s3"),
            "MLFLOW_S3_ENDPOINT_URL": self.address("s3"),
            # As in infra/remote.py: rclone sends a whole object's checksum with a part of it.
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }

    def client_environment(self) -> dict[str, str]:
        """What a flow, a stage or a user's shell needs to use the stack."""
        return {
            "PREFECT_API_URL": f"{self.address('prefect')}/api",
            "MLFLOW_TRACKING_URI": self.address("mlflow"),
            "GAPBRIDGE_STACK": str(self.home),
            "GAPBRIDGE_BUCKET": BUCKET,
            **self.s3_environment(),
        }

    def environment(self) -> dict[str, str]:
        """What `.stack/env` holds: the clients' variables and the addresses of the databases."""
        return self.client_environment() | {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database("prefect", "asyncpg"),
            "MLFLOW_BACKEND_STORE_URI": self.database("mlflow", "psycopg"),
        }

    def without_secrets(self, text: str) -> str:
        """`text` as it may be shown."""
        for secret in self.secrets.values():
            text = text.replace(secret, "***")
        return text


def load(home: Path, checkout: Path) -> Settings:
    """The settings of the stack that lies in `home`. Raises StackError when there is none, or its file is damaged."""
    path = home / _FILE
    try:
        content = json.loads(path.read_text())
        return Settings(home, checkout, dict(content["ports"]), dict(content["secrets"]))
    except FileNotFoundError as error:
        raise StackError(f"{home}: no stack lies here; start one with `make stack`") from error
    except (KeyError, TypeError, ValueError) as error:
        raise StackError(f"{path}: damaged; restore it, or move {home} away and start anew") from error


def load_or_create(home: Path, checkout: Path, wanted_ports: Mapping[str, int]) -> Settings:
    """As `load`, with fresh secrets and free ports at the first start; `wanted_ports` replace remembered ones."""
    if (home / _FILE).exists():
        settings = load(home, checkout)
        ports = {**settings.ports, **wanted_ports}
        keys = settings.secrets
    else:
        ports = dict(wanted_ports)
        for service, preferred in PREFERRED_PORTS.items():
            ports.setdefault(service, _free_port(preferred, set(ports.values())))
        keys = {name: secrets.token_hex(20) for name in _SECRETS}
    if len(set(ports.values())) < len(ports):
        raise StackError(f"ports: {ports} names one twice; choose another with --port NAME=NUMBER")
    settings = Settings(home, checkout, ports, keys)
    for folder in (home, home / "logs", home / "processes"):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    home.chmod(0o711)  # PostgreSQL's user passes through on its way to its own folder
    content = {key: value for key, value in asdict(settings).items() if key in ("ports", "secrets")}
    write_private(home / _FILE, json.dumps(content, indent=2, sort_keys=True) + "\n")
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in settings.environment().items()]
    write_private(home / "env", "".join(lines))
    write_private(home / "compose.env", "".join(f"{name.upper()}={value}\n" for name, value in keys.items()))
    return settings


def write_private(path: Path, text: str) -> None:
    """Write `path` in one step, for its owner's eyes alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(text)
    partial.replace(path)


def is_free(port: int) -> bool:
    """Whether nobody listens on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port(preferred: int, taken: set[int]) -> int:
    """The preferred port, or any other when it is in use."""
    if preferred not in taken and is_free(preferred):
        return preferred
    while True:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        if port not in taken:
            return port
