"""The search index, on small texts and against an oracle that reads all of the standard library's source."""

from __future__ import annotations

import dataclasses
import os
import random
import sys
from functools import cache
from pathlib import Path

import msgspec
import pytest

from examples.search.corpus import python_files, read_source, stdlib_root
from examples.search.index import Index, Line, Match
from examples.search.query import Query, QueryError, Term, spellings


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Corpus:
    """The same texts twice: indexed, and as plain lists of words with the line of each word beside it."""

    index: Index
    words: dict[str, list[str]]
    lines: dict[str, list[int]]
    size_bytes: dict[str, int]


@pytest.fixture(scope="module")
def stdlib() -> Corpus:
    root = stdlib_root()
    corpus = Corpus(Index(), {}, {}, {})
    for file in python_files(root):
        path, text = file.relative_to(root).as_posix(), read_source(file)
        corpus.index.add(path, text)
        corpus.words[path], corpus.lines[path] = words_by_character(text)
        corpus.size_bytes[path] = len(text.encode())
    return corpus


def words_by_character(text: str) -> tuple[list[str], list[int]]:
    """Runs of letters, digits and underscores, and the line of each, found without a regular expression."""
    separators = {letter: " " for letter in set(text) if letter != "_" and not letter.isalnum()}
    table = str.maketrans(separators)
    words, lines = [], []
    for number, line in enumerate(text.split("\n"), 1):
        found = [sys.intern(word) for word in line.translate(table).split()]
        words += found
        lines += [number] * len(found)
    return words, lines


@cache
def found_under(word: str) -> frozenset[str]:
    """A word and its parts in lower case, cut letter by letter: before capitals that begin a part."""
    found = {word.lower()}
    for piece in word.split("_"):
        begin = 0
        for at in range(1, len(piece)):
            after_small = not is_capital(piece[at - 1])
            before_small = "a" <= piece[at + 1 : at + 2] <= "z"
            if is_capital(piece[at]) and (after_small or before_small):
                found.add(piece[begin:at].lower())
                begin = at
        found.add(piece[begin:].lower())
    return frozenset(found - {""})


def is_capital(letter: str) -> bool:
    return "A" <= letter <= "Z"


def lines_by_reading(corpus: Corpus, term: Term) -> dict[str, list[int]]:
    """The line of each occurrence of a term, by file: the oracle."""
    every_word = set().union(*corpus.words.values())
    first, *others = [{word for word in every_word if wanted in found_under(word)} for wanted in term]
    found: dict[str, list[int]] = {}
    for path, words in corpus.words.items():
        begins = [at for at, word in enumerate(words) if word in first]
        for nth, spelled in enumerate(others, 1):
            begins = [at for at in begins if at + nth < len(words) and words[at + nth] in spelled]
        if begins:
            found[path] = [corpus.lines[path][at] for at in begins]
    return found


def lines_by_index(match: Match) -> set[int]:
    return {line.number for line in match.lines()}


def paths(matches: list[Match]) -> list[str]:
    return [match.document.path for match in matches]


def index_of(**texts: str) -> Index:
    index = Index()
    for path, text in texts.items():
        index.add(path, text)
    return index


def search(index: Index, text: str) -> list[Match]:
    return index.search(Query.parse(text))


def random_terms(corpus: Corpus, rng: random.Random, count: int) -> list[Term]:
    """Words, parts of words and runs of up to three words that do occur, and a few that may not."""
    files = sorted(path for path, words in corpus.words.items() if words)
    terms: list[Term] = []
    for _ in range(count):
        words = corpus.words[rng.choice(files)]
        begin = rng.randrange(len(words))
        run = [
            rng.choice(sorted(found_under(word))) for word in words[begin : begin + rng.choice((1, 1, 2, 3))]
        ]
        if rng.random() < 0.1:
            rng.shuffle(run)
        terms.append(tuple(run))
    return terms


def test_finds_what_reading_every_word_of_the_standard_library_finds(stdlib: Corpus) -> None:
    seed = int(os.environ.get("RPCFW_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"replay with RPCFW_TEST_SEED={seed}")
    for term in random_terms(stdlib, random.Random(seed), 12):
        expected = lines_by_reading(stdlib, term)
        matches = stdlib.index.search(Query((term,)))
        assert {match.document.path: match.occurrences for match in matches} == {
            path: len(lines) for path, lines in expected.items()
        }, term
        assert {match.document.path: lines_by_index(match) for match in matches} == {
            path: set(lines) for path, lines in expected.items()
        }, term


def test_a_file_must_have_all_terms_of_a_query(stdlib: Corpus) -> None:
    query = Query.parse('socket timeout "except OSError"')
    expected = [lines_by_reading(stdlib, term) for term in query.terms]
    in_all = set(expected[0]) & set(expected[1]) & set(expected[2])
    assert 0 < len(in_all) < min(map(len, expected))
    matches = stdlib.index.search(query)
    assert {match.document.path: match.occurrences for match in matches} == {
        path: sum(len(lines[path]) for lines in expected) for path in in_all
    }


def test_a_line_found_is_the_line_of_the_file(stdlib: Corpus) -> None:
    (match,) = [
        match for match in search(stdlib.index, '"class OrderedDict"') if "collections" in match.document.path
    ]
    source = Path(stdlib_root(), match.document.path).read_text(encoding="utf-8").splitlines()
    assert [line.text for line in match.lines()] == ["class OrderedDict(dict):"]
    assert [source[line.number - 1] for line in match.lines()] == ["class OrderedDict(dict):"]


def test_counts_every_word_and_byte_of_the_standard_library(stdlib: Corpus) -> None:
    assert stdlib.index.documents == len(stdlib.words) > 400
    assert stdlib.index.words == sum(map(len, stdlib.words.values()))
    assert stdlib.index.size_bytes == sum(stdlib.size_bytes.values())


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("chunk", {"chunk"}),
        ("read_chunk_size", {"read_chunk_size", "read", "chunk", "size"}),
        ("HTTPServer", {"httpserver", "http", "server"}),
        ("getHTTPResponse", {"gethttpresponse", "get", "http", "response"}),
        ("SHA256", {"sha256"}),
        ("__init__", {"__init__", "init"}),
        ("MAX_LINE", {"max_line", "max", "line"}),
        ("größeAnders", {"größeanders", "größe", "anders"}),
        ("_", {"_"}),
    ],
)
def test_a_word_is_found_as_a_whole_and_by_its_parts(word: str, expected: set[str]) -> None:
    assert set(spellings(word)) == expected == found_under(word)
    index = index_of(a=f"x = {word}(1)")
    assert all(paths(index.search(Query(((spelling,),)))) == ["a"] for spelling in expected)


def test_case_does_not_matter() -> None:
    index = index_of(a="class ThreadPoolExecutor: pass")
    assert paths(search(index, "threadPOOLexecutor")) == paths(search(index, "POOL")) == ["a"]


def test_a_phrase_is_words_in_a_row_over_punctuation_and_line_ends() -> None:
    index = index_of(a="os.path.join(\n    name)", b="join(path, os, name)")
    assert paths(search(index, '"os path join name"')) == ["a"]
    assert paths(search(index, "os.path.join")) == ["a"]
    assert sorted(paths(search(index, "os path join name"))) == ["a", "b"]


def test_a_phrase_does_not_run_from_one_document_into_the_next() -> None:
    index = index_of(a="import first", b="second")
    assert search(index, '"first second"') == []


def test_a_phrase_may_repeat_a_word() -> None:
    index = index_of(a="no no no", b="no yes no")
    assert [(match.document.path, match.occurrences) for match in search(index, '"no no"')] == [("a", 2)]


def test_a_phrase_longer_than_what_stands_before_its_rarest_word_matches_nothing() -> None:
    assert search(index_of(a="rare common common"), '"common rare"') == []


def test_files_with_more_of_a_rare_word_and_less_else_come_first() -> None:
    index = index_of(
        often="rare rare rare common",
        once="rare common common common",
        diluted="rare " + "common " * 50,
        without="common common",
    )
    assert paths(search(index, "rare")) == ["often", "once", "diluted"]
    scores = [match.score for match in search(index, "rare")]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[1] > scores[2] > 0


def test_files_that_match_equally_well_are_ordered_by_path() -> None:
    assert paths(search(index_of(b="same", c="same", a="same"), "same")) == ["a", "b", "c"]


def test_lines_are_numbered_stripped_and_cut() -> None:
    text = f"first\n\n    second = 2\r\n\fthird {'x' * 300}\n"
    (match,) = search(index_of(a=text), "third")
    assert list(match.lines()) == [Line(4, f"third {'x' * 194}")]
    (match,) = search(index_of(a=text), "second")
    assert list(match.lines()) == [Line(3, "second = 2")]


def test_a_line_with_several_occurrences_is_listed_once() -> None:
    (match,) = search(index_of(a="def self(self): self\nself"), "self def")
    assert match.occurrences == 5
    assert [line.number for line in match.lines()] == [1, 2]


def test_a_document_of_the_same_path_replaces_the_earlier_one() -> None:
    index = index_of(a="old text", b="other")
    (before,) = search(index, "old")
    index.add("a", "new")
    assert search(index, "old") == []
    assert paths(search(index, "new")) == ["a"]
    assert (index.documents, index.words, index.size_bytes) == (2, 2, len("new" + "other"))
    assert list(before.lines()) == [Line(1, "old text")], "a match found earlier stays as it was"


def test_a_document_added_later_is_found_at_once() -> None:
    index = index_of(a="first")
    assert search(index, "second") == []
    index.add("b", "second")
    assert paths(search(index, "second")) == ["b"]


def test_a_query_without_terms_matches_every_file() -> None:
    index = index_of(b="two", a="one", empty="")
    assert [(match.document.path, match.occurrences) for match in index.search(Query())] == [
        ("a", 0),
        ("b", 0),
        ("empty", 0),
    ]


def test_a_search_of_an_empty_index_finds_nothing() -> None:
    assert search(Index(), "anything") == []
    assert Index().search(Query()) == []


def test_an_index_that_was_dumped_and_loaded_answers_as_before_and_goes_on() -> None:
    index = index_of(a="old text", b="class Größe:\n    text = 1", empty="")
    index.add("a", "new text\ntext")
    loaded = Index.load(index.dump())
    index.add("c", "text again")
    loaded.add("c", "text again")
    loaded.add("b", "other")
    index.add("b", "other")
    assert (loaded.documents, loaded.words, loaded.size_bytes) == (
        index.documents,
        index.words,
        index.size_bytes,
    )
    for text in ("text", "old", "größe", '"new text"', "other"):
        found, expected = search(loaded, text), search(index, text)
        assert [(match.document.path, match.score, list(match.lines())) for match in found] == [
            (match.document.path, match.score, list(match.lines())) for match in expected
        ]


def test_what_is_no_index_is_not_loaded() -> None:
    with pytest.raises(msgspec.DecodeError):
        Index.load(b"\x93\x01\x02\x03")


def test_a_query_reads_words_phrases_and_dotted_names() -> None:
    assert Query.parse(' Socket  "except  OSError as" os.path Socket ').terms == (
        ("socket",),
        ("except", "oserror", "as"),
        ("os", "path"),
    )


def test_a_query_reads_back_from_its_own_text() -> None:
    query = Query.parse('socket "except OSError" os.path __init__')
    assert str(query) == 'socket "except oserror" "os path" __init__'
    assert Query.parse(str(query)) == query


def test_a_query_is_narrowed_and_widened_by_terms() -> None:
    query = Query.parse("socket").adding(Query.parse('timeout "async def" socket'))
    assert str(query) == 'socket timeout "async def"'
    assert str(query.removing(Query.parse('socket "ASYNC def" absent'))) == "timeout"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the query '' is empty; give at least one word"),
        ("  ", "the query '  ' is empty; give at least one word"),
        ('say "async def', "opens a quote that it does not close; add a closing quote"),
        ("a + b", "has a piece without a word: +; leave it out"),
        ('a ""', 'has a piece without a word: ""; leave it out'),
    ],
)
def test_a_query_that_cannot_be_read_says_what_is_wrong_and_how_to_mend_it(text: str, problem: str) -> None:
    with pytest.raises(QueryError) as caught:
        Query.parse(text)
    assert problem in str(caught.value)
    assert repr(text) in str(caught.value)


def test_sources_are_read_in_the_encoding_they_declare(tmp_path: Path) -> None:
    declared = tmp_path / "declared.py"
    declared.write_bytes("# -*- coding: iso-8859-15 -*-\nprice = '5 €'\n".encode("iso-8859-15"))
    wrong = tmp_path / "wrong.py"
    wrong.write_bytes(b"name = '\xe9'\n")
    assert "5 €" in read_source(declared)
    assert read_source(wrong) == "name = 'é'\n"


def test_python_files_are_listed_in_order_without_packages_and_caches(tmp_path: Path) -> None:
    for name in ("z.py", "a.py", "notes.txt", "pkg/c.py", "site-packages/d.py", "__pycache__/e.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert [path.relative_to(tmp_path).as_posix() for path in python_files(tmp_path)] == [
        "a.py",
        "pkg/c.py",
        "z.py",
    ]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="nowhere' is not a folder"):
        python_files(tmp_path / "nowhere")
