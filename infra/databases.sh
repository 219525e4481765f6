#!/bin/sh
# PostgreSQL's container at its first start: the databases of Prefect and MLflow. Passwords go by a pipe.
set -eu
for name in prefect mlflow; do
    password=$(printenv "$(echo "$name" | tr '[:lower:]' '[:upper:]')_PASSWORD")
    { printf '\\set name %s\n\\set password %s\n' "$name" "$password"; cat "${SQL:-/gapbridge/database.sql}"; } \
        | psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres --file=-
done
