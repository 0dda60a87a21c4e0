"""What people think of clips: stars, notes and votes between two clips, in the database of runs.

opinions = Opinions(store)
opinions.rate(record.id, 4)
opinions.note(record.id, "the steam does not move")
opinions.vote(left=record.id, right=other.id, better="left")
statistics.ranking(opinions.votes())
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from i2v_lab.clip.record import stamp, writable
from i2v_lab.errors import InputError
from i2v_lab.store import Store

if TYPE_CHECKING:
    import pandas as pd

Better = Literal["left", "right", "equal"]
STARS = range(1, 6)
NOTE_MAX = 10_000  # characters
ID_MAX = 500

_OPINION = (
    "INSERT INTO opinions (run, {0}, changed) VALUES (?, ?, ?) "
    "ON CONFLICT (run) DO UPDATE SET {0} = excluded.{0}, changed = excluded.changed"
)


class Opinions:
    """Ratings, notes and votes of one output folder. Many processes and threads may use them at once.

    Runs are named by their id; a clip without a run may be named by any other text that stays the same. Texts come back
    as they were given: the code that shows them escapes them. Every method raises StoreError as the store does.
    """

    def __init__(self, store: Store) -> None:
        self._database = store.database

    def rate(self, id: str, stars: int | None) -> None:
        """Give a clip 1 to 5 stars; None removes them.

        Raises:
            InputError: another number.
        """
        if stars is not None and (isinstance(stars, bool) or stars not in STARS):
            raise InputError(f"stars: expected 1 to 5, or None, got {stars!r}")
        self._set("stars", id, stars)

    def note(self, id: str, text: str) -> None:
        """Write a note beside a clip, in place of the one before; "" removes it.

        Raises:
            InputError: longer than 10,000 characters.
        """
        if len(text) > NOTE_MAX:
            raise InputError(f"note: expected at most {NOTE_MAX} characters, got {len(text)}; shorten it")
        self._set("note", id, writable(text))

    def _set(self, column: str, id: str, value: Any) -> None:
        row = (_checked(id), value, stamp(datetime.now(UTC)))
        self._database.write(lambda connection: connection.execute(_OPINION.format(column), row))

    def vote(self, left: str, right: str, better: Better) -> None:
        """Record which of two clips a person found better; each vote counts, also the second one on the same pair.

        Raises:
            InputError: a clip against itself, or another word than left, right or equal.
        """
        if better not in get_args(Better):
            raise InputError(f"better: expected left, right or equal, got {better!r}")
        if left == right:
            raise InputError(f"a vote: expected two clips, got {left!r} twice")
        row = (_checked(left), _checked(right), better, stamp(datetime.now(UTC)))
        command = 'INSERT INTO votes ("left", "right", better, created) VALUES (?, ?, ?, ?)'
        self._database.write(lambda connection: connection.execute(command, row))

    def table(self) -> pd.DataFrame:
        """One row a clip with stars or a note. Index: the run's id; columns: stars (Int64, NA where none), note (str)."""
        import pandas as pd

        query = "SELECT run, stars, note FROM opinions WHERE stars IS NOT NULL OR note <> '' ORDER BY run"
        rows = self._database.read(lambda connection: connection.execute(query).fetchall())
        found = pd.DataFrame({"stars": pd.array([row[1] for row in rows], dtype="Int64"), "note": [row[2] for row in rows]})
        found.index = pd.Index([row[0] for row in rows], name="id", dtype=object)
        return found

    def votes(self) -> pd.DataFrame:
        """One row a vote, in the order they were given: left, right (ids), better (left, right, equal), created (UTC)."""
        import pandas as pd

        query = 'SELECT "left", "right", better, created FROM votes ORDER BY number'
        rows = self._database.read(lambda connection: connection.execute(query).fetchall())
        found = pd.DataFrame(rows, columns=["left", "right", "better", "created"])
        return found.assign(created=pd.to_datetime(found["created"], utc=True))


def _checked(id: str) -> str:
    if not isinstance(id, str) or not 1 <= len(id) <= ID_MAX:
        raise InputError(f"id: expected the id of a run, got {str(id)[:80]!r}")
    return writable(id)
