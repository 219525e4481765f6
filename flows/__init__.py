"""The surroundings' side of the pipeline: Prefect flows. They drive DVC as a program and import nothing of gapbridge."""

import os

# Read by Prefect when it is imported, which happens after this; a user's own settings win.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "90")
os.environ.setdefault("PREFECT_LOGGING_FORMATTERS_STANDARD_DATEFMT", "%H:%M:%S")
os.environ.setdefault(
    "PREFECT_LOGGING_FORMATTERS_STANDARD_TASK_RUN_FMT", "%(asctime)s | %(task_run_name)-16s | %(message)s"
)
os.environ.setdefault(
    "PREFECT_LOGGING_FORMATTERS_STANDARD_FLOW_RUN_FMT", "%(asctime)s | flow             | %(message)s"
)
