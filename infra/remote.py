"""The DVC remote on the stack's bucket, written where only this checkout's owner reads it: .dvc/config.local."""

import configparser
import io
import os
import sys
from pathlib import Path

from infra.settings import BUCKET, StackError, write_private

NAME = "stack"
_SECTION = f"'remote \"{NAME}\"'"
# rclone sends the checksum of a whole object with a part of it too, which botocore then takes for damage.
_AWS_CONFIG = """[default]
request_checksum_calculation = when_required
response_checksum_validation = when_required
"""


def connect(checkout: Path, home: Path, endpoint: str, key: str, secret: str) -> None:
    """Name the bucket as a remote of the checkout, the default one unless it has another; nothing else changes.

    A checkout without DVC is left alone. The keys go by this file, since `dvc remote modify` would have them on its
    command line. Raises StackError when the file cannot be read.
    """
    folder = checkout / ".dvc"
    if not folder.is_dir():
        return
    local = _read(folder / "config.local")
    local[_SECTION] = {
        "url": f"s3://{BUCKET}/dvc",
        "endpointurl": endpoint,
        "access_key_id": key,
        "secret_access_key": secret,
        "configpath": str(home / "aws"),
        "verify": "true",  # a damaged object is an error, not an out
    }
    write_private(home / "aws", _AWS_CONFIG)
    if not any(config.get("core", "remote", fallback=None) for config in (local, _read(folder / "config"))):
        if not local.has_section("core"):
            local.add_section("core")
        local["core"]["remote"] = NAME
    text = io.StringIO()
    local.write(text)
    write_private(folder / "config.local", text.getvalue())


def _read(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
    except configparser.Error as error:
        raise StackError(f"{path}: cannot be read ({error.message.splitlines()[0]}); mend it") from error
    return parser


if __name__ == "__main__":  # in the worker's container, whose environment names the store
    try:
        connect(
            Path.cwd(), Path(os.environ["GAPBRIDGE_STACK"]), os.environ["AWS_ENDPOINT_URL"],
            os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip
    except (KeyError, StackError) as error:
        sys.exit(f"error: {error}")
