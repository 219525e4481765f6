"""PostgreSQL from the system's packages: made, started and given its databases, never as root."""

import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from infra.settings import ADMINISTRATOR, DATABASES, HOST, Settings, StackError, write_private

_PLACES = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "usr/local/pgsql/bin")
_OLDEST = 13  # the first one where a database's owner may create the extension that Prefect asks for
_ACCOUNT = "postgres"
_DATABASE = Path(__file__).with_name("database.sql")


def programs() -> Path:
    """The folder of initdb, postgres and psql, of the newest version found.

    Raises StackError, saying what to install, when there is none.
    """
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += [folder for place in _PLACES for folder in Path("/").glob(place)]
    whole = [folder for folder in folders if all((folder / name).exists() for name in ("initdb", "postgres", "psql"))]
    versions = {folder: version for folder in whole if (version := _version(folder)) >= _OLDEST}
    if not versions:
        raise StackError(f"PostgreSQL {_OLDEST} or newer is not installed; `apt-get install postgresql` and try again")
    return max(versions, key=versions.__getitem__)


def _version(folder: Path) -> int:
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\(PostgreSQL\) (\d+)", said)
    return int(found[1]) if found else 0


def account() -> pwd.struct_passwd | None:
    """Whom PostgreSQL runs as: None for oneself; for root, who may not, the user postgres, made if need be."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(_ACCOUNT)
    except KeyError:
        useradd = shutil.which("useradd")
        if useradd is None:
            raise StackError(f"PostgreSQL refuses to run as root; make a user {_ACCOUNT} and try again") from None
        subprocess.run([useradd, "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", _ACCOUNT], check=True)
        return pwd.getpwnam(_ACCOUNT)


def data(settings: Settings) -> Path:
    """The folder of the databases."""
    return settings.home / "postgres"


def initialise(settings: Settings) -> None:
    """Make the databases' folder at the first start, whole or not at all."""
    if data(settings).exists():
        return
    partial = settings.home / "postgres.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    if (owner := account()) is not None:
        os.chown(partial, owner.pw_uid, owner.pw_gid)
        if subprocess.run(["test", "-w", partial], user=owner.pw_uid, group=owner.pw_gid, check=False).returncode:
            shutil.rmtree(partial)
            raise StackError(
                f"{settings.home}: the user {owner.pw_name}, as whom PostgreSQL runs, cannot come here; allow it "
                f"(chmod o+x) on every folder above, or choose another place with --home DIR"
            )
    password = partial.with_suffix(".password")
    write_private(password, settings.secrets["administrator_password"])
    made = partial / "data"
    command = [str(programs() / "initdb"), "--pgdata", str(made), "--username", ADMINISTRATOR,
               "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", f"--pwfile={password}"]  # fmt: skip
    try:
        if owner is not None:
            os.chown(password, owner.pw_uid, owner.pw_gid)
        done = _run_as(owner, command, partial)
        if done.returncode != 0:
            raise StackError(f"initdb failed: {' '.join(done.stdout.split()[-40:])}")
        made.replace(data(settings))
    finally:
        password.unlink(missing_ok=True)
        shutil.rmtree(partial, ignore_errors=True)


def _run_as(owner: pwd.struct_passwd | None, command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    identity: dict[str, Any] = (
        {} if owner is None else {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    )
    return subprocess.run(
        command, cwd=folder, text=True, check=False, umask=0o077,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **identity,
    )  # fmt: skip


def command(settings: Settings) -> list[str]:
    """The server's command line: loopback alone, no socket file."""
    options = {"listen_addresses": HOST, "unix_socket_directories": "", "logging_collector": "off"}
    line = [str(programs() / "postgres"), "-D", str(data(settings)), "-p", str(settings.ports["postgres"])]
    return line + [word for name, value in options.items() for word in ("-c", f"{name}={value}")]


def answer(settings: Settings, sql: str) -> str | None:
    """Run `sql` as the administrator; None when it went well, otherwise what psql says.

    The password goes by the environment and the statements by a pipe: neither is on a command line.
    """
    environment = dict(os.environ) | {
        "PGHOST": HOST,
        "PGPORT": str(settings.ports["postgres"]),
        "PGUSER": ADMINISTRATOR,
        "PGDATABASE": "postgres",
        "PGPASSWORD": settings.secrets["administrator_password"],
        "PGCONNECT_TIMEOUT": "2",
    }
    psql = [str(programs() / "psql"), "--no-psqlrc", "--no-password", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-"]
    done = subprocess.run(
        psql, env=environment, input=sql, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return None if done.returncode == 0 else " ".join(done.stdout.split())


def create_databases(settings: Settings) -> None:
    """A database and a user of the same name for each that keeps one; finds them there the next time."""
    script = _DATABASE.read_text()
    statements = [
        f"\\set name {name}\n\\set password {settings.secrets[f'{name}_password']}\n{script}" for name in DATABASES
    ]
    if (said := answer(settings, "\n".join(statements))) is not None:
        raise StackError(f"PostgreSQL did not take its databases: {settings.without_secrets(said)}")
