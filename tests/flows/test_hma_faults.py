"""Faults that were found in another matching service, and are not in this one: each over a real
port, with PDQ and digests alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from simsearch.client import Client
from simsearch.errors import BadRequest, EntryInOtherBank
from simsearch.types import (
    Band,
    Edit,
    EntryState,
    HashContent,
    ImageContent,
    MatchOptions,
    MatchResult,
    Signal,
)
from simsearch.v1 import bank_pb2
from tests.encode.pictures import landscape, saved
from tests.serve.house import served

EDIT = Edit("ann", "case 7")
SIGNED = bank_pb2.Edit(actor="ann", reason="case 7")
PHOTOGRAPHS = Path(__file__).parents[2].parent / "shared/data/images/clothing"
CONTENTS = 300


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("faults"), {}) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, deadline_s=20) as client:
        yield client


def pdq(*bits: int) -> HashContent:
    """With these bits set."""
    row = np.zeros(256, np.uint8)
    row[list(bits)] = 1
    return HashContent(Signal.PDQ, np.packbits(row).tobytes())


# ---------------------------------------------------------------- another bank's entries


def test_an_entry_is_not_taken_back_through_another_bank(client: Client) -> None:
    """There, deleting a content by any bank's name removed it. Here it is refused and nothing
    changes, whatever the edit."""
    for bank in ("owner", "other"):
        client.create_bank(bank, EDIT)
    item = HashContent(Signal.SHA256, hashlib.sha256(b"banned").digest())
    key = client.add_entry("owner", [item], EDIT).entry.key
    before = client.log_head(), client.get_entry("owner", key)
    for edit in (
        lambda: client.retract_entry("other", key, EDIT),
        lambda: client.move_entry("other", key, EntryState.QUARANTINED, EDIT),
        lambda: client.extend_entry("other", key, [item], EDIT),
    ):
        with pytest.raises(EntryInOtherBank):
            edit()
    assert (client.log_head(), client.get_entry("owner", key)) == before
    found = client.match(item, MatchOptions(("owner",)))
    assert (found.verdict, [hit.entry_key for hit in found.hits]) == (Band.BLOCK, [key])


# ---------------------------------------------------------------- the share of hits that counts


def update(client: Client, bank: str, ratio: float) -> bank_pb2.Bank:
    return client.update_bank(
        bank_pb2.UpdateBankRequest(name=bank, enabled_ratio=ratio, edit=SIGNED)
    ).bank


@pytest.mark.parametrize("ratio", [7.5, -0.1, 1.0000001, float("nan"), float("inf")])
def test_a_share_beyond_all_or_nothing_is_refused(client: Client, ratio: float) -> None:
    """There, 7.5 was taken. Here neither a new bank nor an update has it."""
    name = f"share-{hashlib.sha256(str(ratio).encode()).hexdigest()[:8]}"
    with pytest.raises(BadRequest, match="enabled_ratio"):
        client.create_bank(name, EDIT, enabled_ratio=ratio)
    client.create_bank(name, EDIT)
    with pytest.raises(BadRequest, match="enabled_ratio"):
        update(client, name, ratio)
    assert client.get_bank(name).enabled_ratio == 1


def test_the_share_that_counts_is_always_the_same(client: Client) -> None:
    """There, the same question was answered by chance. Here who is hit is decided once, near the
    share that was set; a larger share holds a smaller one; and none disables all, visibly."""
    client.create_bank("rated", EDIT)
    key = client.add_entry("rated", [pdq()], EDIT).entry.key
    # Different contents, all within 31 bits of the entry.
    asked = [pdq(n % 256, (7 * n + 3) % 256, 11 * (n // 256) + 1) for n in range(CONTENTS)]
    asked = list(dict.fromkeys(asked))
    assert len(asked) > 0.9 * CONTENTS

    def hit(ratio: float) -> set[HashContent]:
        update(client, "rated", ratio)
        options = MatchOptions(("rated",), with_shadow=True)
        counted = set()
        for start in range(0, len(asked), 100):
            part = asked[start : start + 100]
            for content, result in zip(part, client.match_batch(part, options), strict=True):
                assert isinstance(result, MatchResult)
                assert [h.entry_key for h in (*result.hits, *result.shadow)] == [key]
                counted |= {content} if result.hits else set()
        return counted

    shares = [hit(ratio) for ratio in (0, 0.1, 0.3, 0.7, 1)]
    assert shares[0] == set()
    assert shares[-1] == set(asked)
    for smaller, larger in pairwise(shares):
        assert smaller < larger
    # Five standard deviations of a binomial.
    assert abs(len(shares[2]) / len(asked) - 0.3) < 5 * (0.3 * 0.7 / len(asked)) ** 0.5
    assert hit(0.3) == shares[2]


# ---------------------------------------------------------------- other ways to write a picture


def photographs() -> list[Any]:
    """Real ones where they are beside the checkout, and one that is made."""
    real = sorted(PHOTOGRAPHS.glob("*.jpg"))[:: max(1, 5_755 // 4)][:4]
    return [
        pytest.param(None, id="made"),
        *(pytest.param(path, id=f"photograph {n}") for n, path in enumerate(real)),
    ]


def copies(picture: Image.Image) -> dict[str, bytes]:
    """The same picture, written otherwise."""
    rgb = picture.convert("RGB")
    return {
        "palette PNG": saved(rgb.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"),
        "palette PNG, 64 colours": saved(rgb.quantize(64), "PNG"),
        "web palette GIF": saved(rgb.convert("P"), "GIF"),
        "CMYK JPEG": saved(rgb.convert("CMYK"), "JPEG", quality=90),
        "grey JPEG": saved(rgb.convert("L"), "JPEG", quality=90),
        "RGBA PNG": saved(rgb.convert("RGBA"), "PNG"),
        "16-bit grey PNG": saved(
            Image.fromarray(np.asarray(rgb.convert("L"), np.uint16) * 257), "PNG"
        ),
    }


@pytest.mark.parametrize("path", photographs())
def test_a_copy_in_other_colours_is_the_same_picture(client: Client, path: Path | None) -> None:
    """There, a palette PNG was 38 bits and a CMYK JPEG 254 bits from the photograph that it shows.
    Here each copy hits it by PDQ, within the 31 bits that block."""
    picture = Image.open(path) if path else landscape(3, (320, 240))
    bank = f"pictures-{path.stem.lower()[:16] if path else 'made'}"
    client.create_bank(bank, EDIT)
    key = client.add_entry(bank, [ImageContent(saved(picture, "JPEG", quality=85))], EDIT).entry.key
    for way, data in copies(picture).items():
        result = client.match(ImageContent(data), MatchOptions((bank,)))
        assert [hit.entry_key for hit in result.hits] == [key], way
        [evidence] = [e for e in result.hits[0].evidence if e.signal == Signal.PDQ]
        assert evidence.hamming is not None, way
        assert evidence.hamming <= 31, way
        assert result.verdict is Band.BLOCK, way


# ---------------------------------------------------------------- the order of hits


def test_the_best_hits_come_first_and_are_kept(client: Client) -> None:
    """There, a listing came in no order and its cut kept any. Here the nearest come first, and
    where fewer are asked for, the nearest are those that are left."""
    client.create_bank("ordered", EDIT)
    distances = [30, 4, 17, 0, 25, 9, 31, 12]
    keys = {
        client.add_entry("ordered", [pdq(*range(d))], EDIT, labels=[str(d)]).entry.key: d
        for d in distances
    }
    whole = client.match(pdq(), MatchOptions(("ordered",), hits_max=50))
    assert [keys[hit.entry_key] for hit in whole.hits] == sorted(distances)
    assert [hit.evidence[0].hamming for hit in whole.hits] == sorted(distances)
    assert not whole.truncated
    for hits_max in range(1, len(distances)):
        cut = client.match(pdq(), MatchOptions(("ordered",), hits_max=hits_max))
        assert cut.hits == whole.hits[:hits_max]
        assert cut.truncated
        assert cut.verdict is whole.verdict
