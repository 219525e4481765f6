"""`python -m infra.stack up`, `down`, `status`, …: PostgreSQL, S3, MLflow, Prefect and a worker, on loopback."""

import argparse
import fcntl
import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra import postgres, processes, remote, services
from infra.services import Service
from infra.settings import BUCKET, PREFERRED_PORTS, Settings, StackError, is_free, load, load_or_create

HEALTHY_SECONDS = 110
STOP_SECONDS = 45
DEPLOY_SECONDS = 120
_SHOWN_LINES = 15
_POLL_SECONDS = 0.3


def up(settings: Settings) -> None:
    """Start what does not run, wait until all is well, and deploy the flows if they changed.

    Raises StackError, after stopping again what this call started, when a service does not become well.
    """
    services.require_programs()
    (settings.home / "s3" / BUCKET).mkdir(parents=True, exist_ok=True)
    postgres.initialise(settings)
    every = services.all_services(settings)
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        _bring_up(settings, every, started)
        keys = settings.secrets["s3_key"], settings.secrets["s3_secret"]
        remote.connect(settings.checkout, settings.home, settings.address("s3"), *keys)
        if _deployed_digest(settings) != _flows_digest(settings):
            deploy(settings)
    except BaseException:
        for name in services.STOPPED_FIRST:
            if name in started:
                _stop(settings, name)
        raise


def _bring_up(settings: Settings, every: list[Service], started: dict[str, subprocess.Popen[bytes]]) -> None:
    """Each service as soon as those are well that it needs; `started` fills as they start."""
    well: set[str] = set()
    running = {service.name for service in every if processes.recall(settings.process_file(service.name))}
    begun_at: dict[str, float] = {}
    while len(well) < len(every):
        for service in every:
            if service.name in well or not well.issuperset(service.needs):
                continue
            if service.name not in begun_at:
                begun_at[service.name] = time.monotonic()
                if service.name not in running:
                    started[service.name] = _start(settings, service)
            complaint = _complaint(settings, service, started, waited=time.monotonic() - begun_at[service.name])
            if complaint is None:
                if service.name == "postgres":
                    postgres.create_databases(settings)
                well.add(service.name)
                print(f"{service.name}: {'runs already' if service.name in running else 'started'}", flush=True)
        time.sleep(_POLL_SECONDS)


def _start(settings: Settings, service: Service) -> subprocess.Popen[bytes]:
    port = settings.ports.get(service.name)
    if port is not None and not is_free(port):
        raise StackError(
            f"{service.name}: port {port} is taken by another program; stop that, or choose another port with "
            f"--port {service.name}=NUMBER"
        )
    environment = services.own_environment() | service.environment
    folder = service.folder or settings.home
    process = processes.start(service.command, settings.log(service.name), environment, folder, service.account)
    processes.remember(settings.process_file(service.name), process.pid)
    return process


def _complaint(
    settings: Settings, service: Service, started: dict[str, subprocess.Popen[bytes]], waited: float
) -> str | None:
    """What the service lacks yet; raises StackError when there is nothing to wait for any more."""
    process = started.get(service.name)
    if process is not None and (status := process.poll()) is not None:
        raise _failure(settings, service, f"ended with status {status}")
    complaint = service.complaint()
    if complaint is not None and waited > HEALTHY_SECONDS:
        raise _failure(settings, service, f"not well after {HEALTHY_SECONDS} s ({complaint})")
    return complaint


def _failure(settings: Settings, service: Service, what: str) -> StackError:
    log = settings.log(service.name)
    tail = log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:] if log.exists() else []
    said = "".join(f"\n  | {line}" for line in tail)
    return StackError(settings.without_secrets(f"{service.name}: {what}; mend what its log says ({log}){said}"))


def down(settings: Settings) -> None:
    """Stop everything, what was started last first; data, logs and settings stay."""
    for name in services.STOPPED_FIRST:
        print(f"{name}: {'stopped' if _stop(settings, name) else 'did not run'}", flush=True)


def _stop(settings: Settings, name: str) -> bool:
    if name == "worker" and processes.recall(settings.process_file(name)):
        services.cancel_runs(settings)
    number = services.STOP_SIGNALS.get(name, signal.SIGTERM)
    return processes.stop(settings.process_file(name), number, STOP_SECONDS)


def deploy(settings: Settings) -> None:
    """Register the flows of the checkout's prefect.yaml with their schedules.

    Raises StackError when that fails or takes longer than DEPLOY_SECONDS.
    """
    if not (settings.checkout / "prefect.yaml").exists():
        return
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    environment = services.own_environment() | services.prefect_environment(settings)
    try:
        done = subprocess.run(
            command, cwd=settings.checkout, env=environment | {"PWD": str(settings.checkout)}, timeout=DEPLOY_SECONDS,
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise StackError(
            f"deploy: Prefect did not take prefect.yaml within {DEPLOY_SECONDS} s; try again with `make deploy`"
        ) from error
    settings.log("deploy").write_text(done.stdout)
    if done.returncode != 0:
        said = "".join(f"\n  | {line}" for line in done.stdout.splitlines()[-_SHOWN_LINES:])
        raise StackError(f"deploy: prefect.yaml was not taken; mend what is said here{settings.without_secrets(said)}")
    _deployed(settings).write_text(_flows_digest(settings))
    print("deployed: the flows of prefect.yaml", flush=True)


def _deployed(settings: Settings) -> Path:
    return settings.home / "deployed"


def _deployed_digest(settings: Settings) -> str:
    return _deployed(settings).read_text() if _deployed(settings).exists() else ""


def _flows_digest(settings: Settings) -> str:
    """What decides whether to deploy again: by hand changed schedules are left alone until the file changes."""
    path = settings.checkout / "prefect.yaml"
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else ""


def status(settings: Settings) -> bool:
    """Print the table of addresses with the state of each; whether all are well."""
    rows = [("service", "address", "process", "state")]
    for service in services.all_services(settings):
        process = processes.recall(settings.process_file(service.name))
        complaint = "not running" if process is None else service.complaint()
        address = settings.address(service.name) if service.name in settings.ports else "-"
        rows.append((service.name, address, str(process.number) if process else "-", complaint or "well"))
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, (8, 24, 8, 0), strict=True)))
    return all(row[-1] == "well" for row in rows[1:])


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One command at a time on a stack; another one waits."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _port(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in PREFERRED_PORTS or not number.isdecimal() or not 0 < int(number) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text}: must be NAME=NUMBER with one of {', '.join(PREFERRED_PORTS)}")
    return name, int(number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m infra.stack", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status", "deploy", "compose-env"))
    parser.add_argument(
        "--checkout", type=Path, default=Path.cwd(), help="the pipeline that the worker runs; default ."
    )
    parser.add_argument("--home", type=Path, help="where data, logs and secrets lie; default CHECKOUT/.stack")
    parser.add_argument("--port", type=_port, action="append", default=[], metavar="NAME=NUMBER", help="for up")
    return parser


def _obey(arguments: argparse.Namespace) -> bool:
    checkout = arguments.checkout.resolve()
    home = (arguments.home or checkout / ".stack").resolve()
    if arguments.command == "up":
        with _alone(home):
            settings = load_or_create(home, checkout, dict(arguments.port))
            up(settings)
            print()
            well = status(settings)
            print(f"\nfor your shell: set -a; . {home / 'env'}; set +a")
            return well
    if arguments.command == "compose-env":
        print(f"secrets for infra/compose.yaml: {load_or_create(home, checkout, {}).home / 'compose.env'}")
        return True
    settings = load(home, checkout)
    if arguments.command == "status":
        return status(settings)
    with _alone(home):
        (down if arguments.command == "down" else deploy)(settings)
    return True


def main() -> int:
    """Obey the command line; 0 when all is well, 1 with one line that says what is not, 130 when stopped."""
    try:
        return 0 if _obey(_parser().parse_args()) else 1
    except StackError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
