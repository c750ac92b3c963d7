"""The operator's commands: `python -m service.store migrate`, and the projects and keys of those who may ask.

    python -m service.store migrate
    python -m service.store create-project "Design team"
    python -m service.store list-projects
    python -m service.store create-key PROJECT_ID "build server" --scope submit --expires-in-days 90
    python -m service.store list-keys PROJECT_ID
    python -m service.store rotate-key PROJECT_ID KEY_ID --grace-hours 24
    python -m service.store revoke-key PROJECT_ID KEY_ID
    python -m service.store set-quota PROJECT_ID --jobs 20 --submits 60 --gpu-hours none --bytes server
    python -m service.store show-quotas PROJECT_ID
    python -m service.store orphans --dry-run

The database is the one that the settings name (`ATTUNE_DATABASE_URL`, `ATTUNE_DATA_DIR`).
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import get_args

from service.settings import Settings
from service.store import audit, orphans, projects, quotas
from service.store.audit import Deed
from service.store.database import Store, open_store
from service.store.limits import NO_LIMIT, QuotaName
from service.store.migrations import migrate
from service.store.objects import open_objects
from service.store.records.projects import ApiKeyRecord, Scope

QUOTAS: dict[QuotaName, str] = {
    "jobs": "jobs that have not ended",
    "submits": "jobs an hour",
    "gpu_hours": "GPU-hours a month",
    "bytes": "bytes stored",
}
LEFT_OUT = object()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it was done, 1 when what it names does not exist."""
    chosen = _parser().parse_args(arguments)
    settings = Settings()
    url = settings.resolved_database_url
    migrate(url)
    if chosen.command == "migrate":
        return 0
    store = open_store(url, limits=settings.limits)
    try:
        if chosen.command == "orphans":
            return _orphans(store, settings, chosen)
        return _run(store, chosen)
    finally:
        store.close()


def _run(store: Store, chosen: argparse.Namespace) -> int:
    if chosen.command == "create-project":
        _say(projects.create_project(store, chosen.name).id)
        return 0
    if chosen.command == "list-projects":
        for project in projects.list_projects(store):
            _say("\t".join((project.id, project.name, f"{project.created_at:%Y-%m-%d}")))
        return 0
    if projects.get_project(store, chosen.project_id) is None:
        return _refuse(f"there is no project {chosen.project_id!r}")
    audit.current.set(Deed(f"service.store {chosen.command}", project_id=chosen.project_id))
    match chosen.command:
        case "create-key":
            lifetime = None if chosen.expires_in_days is None else timedelta(days=chosen.expires_in_days)
            made = projects.create_key(store, chosen.project_id, chosen.name, scope=chosen.scope, lifetime=lifetime)
            _show_once(*made)
        case "list-keys":
            for record in projects.list_keys(store, chosen.project_id):
                _say("\t".join(_columns_of(record)))
        case "rotate-key":
            grace = timedelta(hours=chosen.grace_hours)
            if (rotated := projects.rotate_key(store, chosen.project_id, chosen.key_id, grace)) is None:
                return _refuse(f"project {chosen.project_id} has no key {chosen.key_id!r} that is still good")
            _show_once(*rotated)
        case "set-quota":
            own = {name: value for name in QUOTAS if (value := getattr(chosen, name)) is not LEFT_OUT}
            quotas.set_limits(store, chosen.project_id, own)
        case "show-quotas":
            for one in quotas.standings(store, chosen.project_id):
                limit = "no limit" if one.limit is None else f"of {one.limit:.12g}"
                _say("	".join((one.name, f"{one.used:.12g}", limit)))
        case "revoke-key":
            if not projects.revoke_key(store, chosen.project_id, chosen.key_id):
                return _refuse(f"project {chosen.project_id} has no key {chosen.key_id!r} that is still good")
    return 0


def _orphans(store: Store, settings: Settings, chosen: argparse.Namespace) -> int:
    hours = settings.orphan_grace_hours if chosen.grace_hours is None else chosen.grace_hours
    objects, count, size = open_objects(settings), 0, 0
    for orphan in orphans.find(store, objects, timedelta(hours=hours)):
        if not chosen.dry_run:
            objects.delete(orphan.key)
        _say("\t".join((orphan.reason, str(orphan.size_bytes), orphan.key)))
        count, size = count + 1, size + orphan.size_bytes
    print(f"{count} objects, {size} bytes {'would go' if chosen.dry_run else 'went'}", file=sys.stderr)  # noqa: T201
    return 0


def _columns_of(key: ApiKeyRecord) -> Iterator[str]:
    yield from (key.id, key.prefix, key.name, f"{key.created_at:%Y-%m-%d}", key.scope)
    yield "never used" if key.last_used_at is None else f"used {key.last_used_at:%Y-%m-%d %H:%M}"
    if key.revoked_at is not None:
        yield f"revoked {key.revoked_at:%Y-%m-%d}"
    elif key.expires_at is not None:
        yield f"expires {key.expires_at:%Y-%m-%d}"


def _show_once(key: str, record: ApiKeyRecord) -> None:
    _say(key)
    print(f"{record.id}: this is the only time that the key is shown", file=sys.stderr)  # noqa: T201


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m service.store", description="Attune's database, projects and keys")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("migrate", help="bring the tables up to date")
    create_project = commands.add_parser("create-project", help="make a project and print its id")
    create_project.add_argument("name")
    commands.add_parser("list-projects", help="id, name and date of every project")
    create_key = commands.add_parser("create-key", help="make an API key and print it, once")
    create_key.add_argument("project_id")
    create_key.add_argument("name", help="what the key is for")
    create_key.add_argument(
        "--scope", choices=get_args(Scope), default="admin", help="what it may; admin when left out"
    )
    create_key.add_argument("--expires-in-days", type=int, help="refused after so many days; never when left out")
    rotate_key = commands.add_parser("rotate-key", help="make a key in the place of another, and print it, once")
    rotate_key.add_argument("project_id")
    rotate_key.add_argument("key_id")
    rotate_key.add_argument("--grace-hours", type=float, default=24.0, help="how long the old one goes on; 24")
    list_keys = commands.add_parser("list-keys", help="id, prefix, name, dates and scope of a project's keys")
    list_keys.add_argument("project_id")
    revoke_key = commands.add_parser("revoke-key", help="refuse a key from now on")
    revoke_key.add_argument("project_id")
    revoke_key.add_argument("key_id")
    set_quota = commands.add_parser("set-quota", help="what a project may take; what is not named stays as it was")
    set_quota.add_argument("project_id")
    for name, what in QUOTAS.items():
        text = f"{what}: a number, `none` for no limit, `server` for the server's own"
        set_quota.add_argument(f"--{name.replace('_', '-')}", type=_limit, default=LEFT_OUT, help=text)
    show_quotas = commands.add_parser("show-quotas", help="what a project has taken of what it may")
    show_quotas.add_argument("project_id")
    orphans_parser = commands.add_parser("orphans", help="remove objects that belong to nobody, and print them")
    orphans_parser.add_argument("--dry-run", action="store_true", help="print them alone")
    orphans_parser.add_argument("--grace-hours", type=_hours, help="how old they must be; ATTUNE_ORPHAN_GRACE_HOURS")
    return parser


def _hours(text: str) -> float:
    if (value := float(text)) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more: an upload comes before its row")
    return value


def _limit(text: str) -> float | None:
    match text:
        case "none":
            return NO_LIMIT
        case "server":
            return None
    if (value := float(text)) < 0:
        raise argparse.ArgumentTypeError("must be 0 or more")
    return value


def _say(line: str) -> None:
    print(line)  # noqa: T201 - the command's answer


def _refuse(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)  # noqa: T201
    return 1


if __name__ == "__main__":
    sys.exit(main())
