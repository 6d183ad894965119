"""Fields of a request out of values that anybody may have written, each on its own.

One that cannot be read, or breaks its rule, is left out with a sentence, and never spoils the others.
"""

from collections.abc import Callable, Mapping
from typing import Any

from engine.errors import InvalidRequest
from engine.requests import TextRequest


class Reading:
    """Values by key, the fields of a request that came out of them so far, and what was left out."""

    def __init__(self, values: Mapping[str, Any], labels: Mapping[str, str]) -> None:
        """Start with no fields.

        Args:
            values: What is read.
            labels: Key to the other name that a value may have; notes show it.
        """
        self.values = values
        self._labels = labels
        self.fields: dict[str, Any] = {}
        self.notes: list[str] = []

    def find(self, key: str) -> Any:
        """Look a value up by key or label; None when neither is there."""
        return self.values.get(key, self.values.get(self._labels.get(key, key)))

    def take(self, key: str, field: str, read: Callable[[object], object]) -> None:
        """Read one value into one field, or note why not."""
        if self.find(key) is None:
            return
        try:
            self.put(field, read(self.find(key)))
        except ValueError as error:
            self.note(key, str(error))

    def put(self, field: str, value: object) -> None:
        """Set a field of the request, given with dots.

        Raises:
            ValueError: the value breaks the field's rule.
        """
        parent, _, name = field.rpartition(".")
        partial = {name: value}
        try:
            TextRequest.parse({parent: partial} if parent else partial)
        except InvalidRequest as error:
            raise ValueError(error.problem) from error
        target = self.fields.setdefault(parent, {}) if parent else self.fields
        target[name] = value

    def note(self, key: str, problem: str) -> None:
        """Say why something was left out."""
        self.notes.append(f"{self._labels.get(key, key)}: {problem}")
