"""The figures of docs/benchmarks.md, put there from a results file, so that none is written by hand.

python -m benchmarks.page FILE.json docs/benchmarks.md
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.acceptance import Criterion, criteria
from benchmarks.report import acceptance, heading, whole
from benchmarks.results import Results, load

_BEGIN, _END = "<!-- {} -->", "<!-- end of {} -->"
SUMMARY, TABLES = "summary", "tables"


def blocks(results: Results) -> dict[str, str]:
    """What belongs between the marks of each name."""
    return {
        SUMMARY: f"{heading(results)}\n\n{_table(criteria(results))}",
        TABLES: whole(results, markdown=True).partition("\n\n")[2],
    }


def filled(page: str, results: Results) -> str:
    """The page with its blocks as these results have them. Raises ValueError for a page without the marks."""
    for name, text in blocks(results).items():
        begin, end = _BEGIN.format(name), _END.format(name)
        if page.count(begin) != 1 or page.count(end) != 1:
            raise ValueError(f"the page needs {begin!r} and {end!r}, once each")
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}"
    return page


def _table(found: list[Criterion]) -> str:
    """The aims, without the heading that tables of a run have."""
    return acceptance(found).markdown().partition("\n\n")[2]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="what `python -m benchmarks --json` wrote")
    parser.add_argument("page", type=Path, help="the page whose figures are replaced")
    arguments = parser.parse_args()
    page = filled(arguments.page.read_text(encoding="utf-8"), load(arguments.file))
    arguments.page.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
