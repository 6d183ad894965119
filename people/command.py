"""The command ``python app.py people``: who may use the page. Passwords come from the keyboard or standard input, never as words of it."""

import argparse
import getpass
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from api.keys import Keys
from engine import EngineError, InvalidRequest
from people.admin import remove
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
    gone = actions.add_parser("remove", help="let a person in no more; keys and jobs go too")
    gone.add_argument("--pictures", action="store_true", help="their pictures go into the bin too")
    for action in (gone, actions.add_parser("password", help="set another one")):
        action.add_argument("name", help="as the list shows it")
    asked = parser.parse_args(arguments)
    try:
        people = People(data_dir, cost)
        if asked.action == "add":
            people.add(asked.name, _password(), "owner" if asked.owner else "guest")
            sys.stdout.write(f"{asked.name} can log in now.\n")
        elif asked.action == "list":
            sys.stdout.writelines(map(_line, people.list()))
            if not people.list():
                sys.stdout.write("Nobody; the first one is let in by: people add NAME --owner\n")
        elif asked.action == "remove":
            keys = remove(people, Keys(data_dir), asked.name, with_pictures=asked.pictures)
            sys.stdout.write(_farewell(asked.name, keys, with_pictures=asked.pictures))
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


def _farewell(name: str, keys: int, *, with_pictures: bool) -> str:
    """Say what became of a person's things."""
    theirs = f", with {keys} key{'s' * (keys != 1)}" if keys else ""
    pictures = "pictures go into the bin" if with_pictures else "pictures stay under that name"
    when = "now, or when the studio starts"
    return f"{name} is removed{theirs}; jobs are stopped {when}, {pictures}\n"


def _line(person: Person) -> str:
    made = datetime.fromtimestamp(person.made_at, UTC)
    return f"{person.name}  {person.role}  {made:%Y-%m-%d %H:%M}Z\n"
