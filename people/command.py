"""The command ``python app.py people``: who may use the page. Passwords come from the keyboard or standard input, never as words of it."""

import argparse
import getpass
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from engine import EngineError, InvalidRequest
from people.passwords import Cost
from people.roster import People, Person


def people_command(arguments: Sequence[str], data_dir: Path, cost: Cost | None = None) -> int:
    """Run ``python app.py people ...``; returns the exit status."""
    parser = argparse.ArgumentParser(prog="app.py people", description="People for the page.")
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="let a person in; asks for a password")
    add.add_argument("name", help="what the person logs in with")
    add.add_argument(
        "--owner", action="store_true", help="may let others in, see the queue, stop jobs"
    )
    actions.add_parser("list", help="list the people")
    for action, meaning in (("remove", "let a person in no more"), ("password", "set another one")):
        actions.add_parser(action, help=meaning).add_argument("name", help="as the list shows it")
    asked = parser.parse_args(arguments)
    try:
        people = People(data_dir, cost)
        if asked.action == "add":
            people.add(asked.name, _password(), "owner" if asked.owner else "guest")
        elif asked.action == "list":
            sys.stdout.writelines(map(_line, people.list()))
        elif asked.action == "remove":
            people.remove(asked.name)
        else:
            people.set_password(asked.name, _password())
    except (EngineError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _password() -> str:
    """Ask twice at a keyboard; else take the first line of standard input."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise InvalidRequest("password", "expected the same twice")
    return password


def _line(person: Person) -> str:
    made = datetime.fromtimestamp(person.made_at, UTC)
    return f"{person.name}  {person.role}  {made:%Y-%m-%d %H:%M}Z\n"
