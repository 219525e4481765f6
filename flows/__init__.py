"""Prefect flows around the pipeline. They drive DVC as a program and import nothing of gapbridge."""

import os

# Read by Prefect when it is imported, which happens after this; a user's own settings win.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
os.environ.setdefault("PREFECT_LOGGING_FORMATTERS_STANDARD_DATEFMT", "%H:%M:%S")
_FORMATS = {"TASK": "%(task_run_name)-15s", "FLOW": "flow           "}
for _kind, _name in _FORMATS.items():
    os.environ.setdefault(
        f"PREFECT_LOGGING_FORMATTERS_STANDARD_{_kind}_RUN_FMT", f"%(asctime)s | {_name} | %(message)s"
    )
