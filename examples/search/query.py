"""What is asked for: a query is a set of terms, a term one or more words in a row.

The one place that says what a word is and under which spellings it can be found, so that the index and the
queries agree. Nothing here holds or reads documents.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from functools import lru_cache

Term = tuple[str, ...]
"""Lower-case words that follow each other; most terms have one."""

words_of: Callable[[str], list[str]] = re.compile(r"\w+").findall
"""The words of a line, as they are written: identifiers, keywords, numbers."""

_parts_of: Callable[[str], list[str]] = re.compile(
    r"[A-Z]+(?=[A-Z][a-z])"  # the HTTP of HTTPServer
    r"|[A-Z]*[^\WA-Z_]+"  # Server, server2, SHA256, größe
    r"|[A-Z]+"  # MAX
).findall
_pieces_of = re.compile(r'"([^"]*)"|([^\s"]+)').finditer


@lru_cache(maxsize=1 << 16)
def spellings(word: str) -> tuple[str, ...]:
    """What a word can be found under, in lower case: itself, and each part of its snake_case or CamelCase."""
    return tuple(dict.fromkeys((word.lower(), *(part.lower() for part in _parts_of(word)))))


class QueryError(ValueError):
    """The query cannot be understood; the message names the piece and the mend."""


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """Terms that must all occur in a file, each listed once. A query without terms matches every file."""

    terms: tuple[Term, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Query:
        """Read ``word "exact phrase" module.name``: pieces apart by spaces, each piece one term.

        Raises:
            QueryError: a quote is left open, a piece has no word in it, or there is no piece at all.
        """
        if text.count('"') % 2:
            raise QueryError(f"the query {text!r} opens a quote that it does not close; add a closing quote")
        pieces = [match[0] for match in _pieces_of(text)]
        if not pieces:
            raise QueryError(f"the query {text!r} is empty; give at least one word")
        return cls(tuple(dict.fromkeys(_parse_term(piece, text) for piece in pieces)))

    def adding(self, other: Query) -> Query:
        """This query, narrowed by the terms of the other."""
        return Query(tuple(dict.fromkeys(self.terms + other.terms)))

    def removing(self, other: Query) -> Query:
        """This query, widened by leaving out the terms of the other, as far as it has them."""
        return Query(tuple(term for term in self.terms if term not in other.terms))

    def __str__(self) -> str:
        return " ".join(term[0] if len(term) == 1 else f'"{" ".join(term)}"' for term in self.terms)


def _parse_term(piece: str, text: str) -> Term:
    term = tuple(word.lower() for word in words_of(piece))
    if not term:
        raise QueryError(
            f"the query {text!r} has a piece without a word: {piece}; "
            "leave it out, since only letters, digits and underscores are indexed"
        )
    return term
