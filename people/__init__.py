"""People: who may use the page, by name and password. Stands before the page and knows nothing of what it shows."""

from people.accounts import Accounts, SpaceEntrance
from people.admin import Admin
from people.door import Door
from people.entrance import Entrance, Visitor
from people.headers import VISITOR
from people.pages import pages
from people.roster import People

__all__ = [
    "VISITOR",
    "Accounts",
    "Admin",
    "Door",
    "Entrance",
    "People",
    "SpaceEntrance",
    "Visitor",
    "pages",
]
