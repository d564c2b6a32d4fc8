"""`simsearch import` against real servers: every row answered for, whatever list it came in."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from simsearch.cli.common.server_process import ServerProcess
from simsearch.cli.lists import import_parts
from simsearch.client import Client
from simsearch.types import (
    Content,
    Edit,
    EntryState,
    HashContent,
    MatchOptions,
    MatchResult,
    Signal,
)
from simsearch.v1 import bank_pb2
from tests.cli.lists.hash_lists import BARE, answered, counts, digits, imported, pdq
from tests.cli.shell import Run
from tests.cli.test_help import HEAVY, LISTED

EDIT: Final = Edit("tester", "a test")

Importing = Callable[..., dict[str, Any]]
Match = Callable[[Content], MatchResult]


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that takes ready hashes alone."""
    directory = tmp_path_factory.mktemp("bare")
    config = directory / "bare.toml"
    config.write_text(BARE)
    process = ServerProcess(directory, config)
    yield process
    process.stop()


@pytest.fixture(scope="module")
def client(bare: ServerProcess) -> Iterator[Client]:
    with Client(bare.address) as client:
        yield client


_numbers = itertools.count(1)


@pytest.fixture
def bank(client: Client) -> str:
    name = f"bank-{next(_numbers)}"
    client.create_bank(name, EDIT)
    return name


@pytest.fixture
def match(client: Client, bank: str) -> Match:
    """Asks this bank alone."""
    return partial(client.match, options=MatchOptions(banks=(bank,), with_shadow=True))


@pytest.fixture
def told(run: Run, bare: ServerProcess, bank: str) -> Importing:
    """Imports a list with --json; what it answered, after its rows were counted."""

    def importing(path: Path | str, *options: str, code: int = 0) -> dict[str, Any]:
        return answered(imported(run, bare, bank, str(path), *options), code)

    return importing


# ---------------------------------------------------------------- formats


def test_a_plain_list(
    told: Importing, match: Match, client: Client, bank: str, tmp_path: Path
) -> None:
    """Byte-order mark, CRLF, upper case, comments and blanks; and searches see it at once."""
    path = tmp_path / "hashes.txt"
    lines = ["# confirmed", digits(1), digits(2).upper(), "", digits(1)]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    found = told(path, "--signal", "pdq", "--label", "scam", "--source", "tips")
    assert counts(found) == {"added": 2, "duplicate": 1, "passed": 2}
    assert found["refused_file"] is None
    hit = match(pdq(2)).hits[0]
    assert (hit.labels, hit.source) == (("scam",), "tips")
    entry = client.get_entry(bank, hit.entry_key)
    assert (entry.added.actor, entry.added.reason) == ("tester", "a list")


CSV: Final = f"""\
entry,signal,value,labels,source,source_id,severity,note,action
e1,pdq,{digits(1)},scam;poster,Partner A,77,high,"seen, twice",add
e1,md5,{digits(1, 16)},scam;poster,Partner A,77,high,,add
e2,pdq,{digits(2)},,Partner A,78,,,
,pdq,{digits(3)},,Partner A,79,,,
,pdq,{digits(2)},,Partner B,1,,,
"""


def test_a_table_with_groups_and_withdrawn_rows(
    told: Importing, match: Match, client: Client, bank: str, tmp_path: Path
) -> None:
    """Neighbours of one name are one entry; withdrawn by hash, by id, and not there at all."""
    path = tmp_path / "monday.csv"
    path.write_text(CSV)
    found = told(path)
    assert counts(found) == {"added": 3, "duplicate": 1}
    assert (found["records"], found["items"]) == (5, 4)
    first = client.get_entry(bank, match(pdq(1)).hits[0].entry_key)
    assert {s.signal: s.rows for s in first.signals} == {"pdq": 1, "md5": 1}
    assert (list(first.labels), first.source_id) == (["scam", "poster"], "77")
    assert (first.severity, first.note) == ("high", "seen, twice")

    path.write_text(
        "signal,value,source,source_id,action\n"
        f",,Partner A,77,withdraw\npdq,{digits(3)},Partner A,,withdraw\n"
        f"pdq,{digits(2)},Partner B,,withdraw\npdq,{digits(3)},Partner A,79,add\n"
    )
    assert counts(told(path)) == {"withdrawn": 2, "absent": 1, "tombstone": 1}
    assert match(pdq(1)).hits == ()
    assert match(pdq(3)).hits == ()
    assert match(pdq(2)).hits  # another source cannot take it back


def test_the_threatexchange_tools_table(told: Importing, match: Match, tmp_path: Path) -> None:
    path = tmp_path / "tx.csv"
    path.write_text(
        "signal_type,signal_str,collab,category,tags\n"
        f"pdq,{digits(1)},Sample Data,POSITIVE_CLASS,scam poster\n"
        f"video_md5,{digits(2, 16)},Sample Data,INVESTIGATION_SEED,\n"
        f"pdq,{digits(3)},Sample Data,NEGATIVE_CLASS,\n"
        f"photodna,AAAA,Sample Data,POSITIVE_CLASS,\n"
    )
    found = told(path, code=3)
    assert counts(found) == {"added": 2, "absent": 1, "refused": 1}
    assert match(pdq(1)).hits[0].labels == ("scam", "poster")


NCMEC: Final = """\
<queryResult xmlns="https://hashsharing.ncmec.org/hashsharing/v2">
  <images count="3">
    {images}
    <deletedImage><member id="43">Other</member><id>image4</id></deletedImage>
  </images>
</queryResult>
"""


def _image(name: str, fingerprints: str) -> str:
    return (
        f'<image><member id="42">M</member><id>{name}</id><classification>A1</classification>'
        f"<fingerprints>{fingerprints}</fingerprints></image>"
    )


def test_ncmec_xml_and_its_refused_rows(
    told: Importing, match: Match, client: Client, bank: str, tmp_path: Path
) -> None:
    """What is refused of an entry is kept as XML; the rest of it is banned."""
    path = tmp_path / "page.xml"
    both = f"<md5>{digits(1, 16)}</md5><pdq>{digits(1)}</pdq><pdna>00ff</pdna>"
    broken = f"<md5>{digits(2, 15)}</md5>"
    path.write_text(NCMEC.format(images=_image("image1", both) + _image("image2", broken)))
    found = told(path, code=3)
    assert found["added"] == found["absent"] == 1
    assert found["refused"] >= 1
    entry = client.get_entry(bank, match(pdq(1)).hits[0].entry_key)
    assert (entry.source, entry.source_id, list(entry.labels)) == ("ncmec", "42-image1", ["A1"])

    kept = Path(found["refused_file"])
    kept.write_text(kept.read_text().replace(digits(2, 15), digits(2, 16)))
    mended = told(kept, "--format", "ncmec")
    assert mended["added"] == 1
    assert match(HashContent(Signal.MD5, bytes.fromhex(digits(2, 16)))).hits


def test_a_video_of_frames(
    told: Importing, match: Match, client: Client, bank: str, tmp_path: Path
) -> None:
    """A file is one entry with a row a frame; poor and repeated frames are counted."""
    path = tmp_path / "video.txt"
    frames = [(100, 1), (49, 2), (80, 3), (90, 1)]
    path.write_text(
        "".join(f"{n},{q},{digits(number)},{n}.000\n" for n, (q, number) in enumerate(frames))
    )
    assert counts(told(path)) == {"added": 1, "passed": 2}
    hit = match(pdq(3)).hits[0]
    assert client.get_entry(bank, hit.entry_key).signals[0].rows == 2


def test_json_lines_with_states(
    told: Importing, match: Match, client: Client, bank: str, tmp_path: Path
) -> None:
    """A row's own state comes before --state."""
    path = tmp_path / "list.jsonl"
    states = ["", "active", "draft", "quarantined"]
    rows = [{"signal": "pdq", "value": digits(n), "state": s} for n, s in enumerate(states)]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert counts(told(path, "--state", "shadow")) == {"added": 4}
    entries = client.list_entries(bank_pb2.ListEntriesRequest(bank=bank)).entries
    assert [EntryState(e.state).name.lower() for e in entries] == ["shadow", *states[1:]]
    assert [match(pdq(n)).hits != () for n in range(4)] == [False, True, False, False]
    assert match(pdq(0)).shadow


# ---------------------------------------------------------------- again, mended, undone


def test_refused_rows_are_put_right_and_imported_again(
    told: Importing, match: Match, tmp_path: Path
) -> None:
    """The file of a table is a table; the list itself may be named again without harm."""
    path = tmp_path / "list.csv"
    path.write_text(f"signal,value,labels\npdq,{digits(1)},scam\npdq,{digits(2)}ff,scam\ntmk,00,\n")
    found = told(path, code=3)
    assert counts(found) == {"added": 1, "refused": 2}
    assert found["refused_by"] == {"BAD_HASH": 1, "NO_SIGNAL": 1}
    kept = Path(found["refused_file"])
    assert kept == tmp_path / "list.csv.refused"
    kept.write_text(kept.read_text().replace(f"{digits(2)}ff", digits(2)))
    assert counts(told(kept, code=3)) == {"added": 1, "refused": 1}
    assert match(pdq(2)).hits[0].labels == ("scam",)
    again = told(path, code=3)
    assert (again["repeated"], again["seq"]) == (1, found["seq"])


def test_the_list_is_not_overwritten_by_its_refused_rows(
    run: Run, bare: ServerProcess, bank: str, tmp_path: Path
) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"pdq {digits(1)}\npdq 00\n")
    words = (str(path), "--refused", str(path))
    ran = imported(run, bare, bank, *words)
    assert ran.code == 3
    assert json.loads(ran.err)["error"]["reason"] == "BAD_REQUEST"
    assert path.read_text() == f"pdq {digits(1)}\npdq 00\n"


def test_what_was_taken_back_is_banned_again_when_asked(
    told: Importing, match: Match, client: Client, bank: str, tmp_path: Path
) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"pdq {digits(1)}\npdq {digits(2)}\n")
    told(path)
    client.retract_entry(bank, match(pdq(1)).hits[0].entry_key, EDIT)
    other = tmp_path / "other.txt"
    other.write_text(f"pdq {digits(1)}\n")
    assert counts(told(other)) == {"tombstone": 1}
    assert match(pdq(1)).hits == ()
    assert counts(told(other, "--revive")) == {"added": 1}
    assert match(pdq(1)).hits


def test_a_dry_run_writes_nothing_and_tells_repeats_of_all_parts(
    told: Importing, client: Client, bank: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It promises what the import then does, though no part sees what another would write."""
    monkeypatch.setattr(import_parts, "HASH_ROWS", 3)
    path = tmp_path / "list.txt"
    path.write_text("".join(f"pdq {digits(n % 7)}\n" for n in range(20)) + "pdq zz\n")
    before = client.status().durable_seq
    planned = told(path, "--dry-run", code=3)
    assert (planned["dry_run"], planned["seq"]) == (True, 0)
    assert client.status().durable_seq == before
    assert list(client.list_entries(bank_pb2.ListEntriesRequest(bank=bank)).entries) == []
    done = told(path, code=3)
    assert counts(planned) == counts(done) == {"added": 7, "duplicate": 13, "refused": 1}


def test_a_list_may_take_back_what_it_adds(
    told: Importing, match: Match, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So its parts are sent one after the other, and each is answered before the next."""
    monkeypatch.setattr(import_parts, "HASH_ROWS", 2)
    one, send = threading.Lock(), Client.import_entries

    def alone(*args: Any, **kwargs: Any) -> bank_pb2.ImportEntriesResponse:
        assert one.acquire(blocking=False)
        try:
            return send(*args, **kwargs)
        finally:
            one.release()

    monkeypatch.setattr(Client, "import_entries", alone)
    rows = [(n, "add") for n in range(40)] + [(n, "withdraw") for n in range(40)]
    path = tmp_path / "list.csv"
    path.write_text(
        "signal,value,source,action\n"
        + "".join(f"pdq,{digits(n)},tips,{action}\n" for n, action in rows)
    )
    assert counts(told(path)) == {"added": 40, "withdrawn": 40}
    assert match(pdq(0)).hits == ()


def test_from_standard_input(
    told: Importing, match: Match, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"pdq {digits(1)}\npdq 00\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    found = told("-", code=3)
    assert counts(found) == {"added": 1, "refused": 1}
    assert found["refused_file"] == "stdin.refused"
    assert (tmp_path / "stdin.refused").exists()
    assert match(pdq(1)).hits


def test_a_folder_of_lists(told: Importing, tmp_path: Path) -> None:
    """Each in its own format; a fault in one of them names it."""
    folder = tmp_path / "monday"
    folder.mkdir()
    (folder / "a.csv").write_text(f"signal,value\npdq,{digits(1)}\n")
    (folder / "b.txt").write_text(f"pdq {digits(1)}\npdq {digits(2)}\n")
    assert counts(told(folder)) == {"added": 2, "duplicate": 1}
    assert told(folder)["repeated"] == 3


# ---------------------------------------------------------------- what a shell sees


def test_people_are_told_in_words(run: Run, bare: ServerProcess, bank: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"pdq {digits(1)}\npdq 0\n")
    asked = ("import", bank, str(path), "--reason", "a list", "--server", bare.address)
    told = run(*asked, "--actor", "tester")
    assert told.code == 3
    assert "new in the bank" in told.out
    assert "searches see it" in told.out
    assert str(tmp_path / "list.txt.refused") in told.out.replace("\n", "")


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("no-such.txt",), 3, "BAD_REQUEST"),
        (("list.txt", "--state", "quarantined"), 3, "BAD_REQUEST"),
        (("list.txt", "--state", "gone"), 3, "BAD_REQUEST"),
        (("list.txt", "--format", "excel"), 3, "BAD_REQUEST"),
        (("list.txt", "--signal", "tmk"), 3, "BAD_REQUEST"),
        (("broken.json",), 3, "BAD_CONTENT"),
    ],
)
def test_what_cannot_be_read_is_refused_whole(
    run: Run,
    bare: ServerProcess,
    bank: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: Sequence[str],
    code: int,
    reason: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text(f"pdq {digits(1)}\n")
    Path("broken.json").write_text('{"hashRecords": [{"signalType": "ImagePDQ", ')
    ran = imported(run, bare, bank, *words)
    assert ran.code == code, ran.err
    assert json.loads(ran.err)["error"]["reason"] == reason


def test_into_a_bank_that_is_not_there(run: Run, bare: ServerProcess, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"pdq {digits(1)}\n")
    assert imported(run, bare, "nowhere", str(path)).code == 4


def test_importing_loads_no_model_library(bare: ServerProcess, bank: str, tmp_path: Path) -> None:
    """A list of hashes is imported by the core package alone."""
    path = tmp_path / "list.txt"
    path.write_text(f"pdq {digits(1)}\n")
    asked = ["import", bank, str(path), "--reason", "a list", "--server", bare.address, "--json"]
    process = subprocess.run(
        [sys.executable, "-c", LISTED, json.dumps([[*asked, "--actor", "tester"]])],
        capture_output=True,
        text=True,
        timeout=60,
    )
    [(code, modules)] = json.loads(process.stdout.splitlines()[-1])
    assert code == 0, process.stderr
    assert {name.partition(".")[0] for name in modules} & HEAVY == set()
