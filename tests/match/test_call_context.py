"""For whom it is goes with a question down to the encoders, where it waits its turn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simsearch.encode.batching.batched_encoders import BatchedTextEncoder
from simsearch.encode.registry import EncoderSet, LoadedEncoder
from simsearch.errors import DeadlinePassed, NotReady, SimsearchError
from simsearch.types import (
    NO_CALL,
    CallContext,
    Content,
    CosineRule,
    ImageContent,
    Modality,
    Policy,
    Priority,
    TextContent,
)
from tests.encode.pictures import landscape, saved
from tests.fakes import PICTURES, PROSE, FakeImageEncoder, FakeTextEncoder, encoders
from tests.match.fakes import RestlessViews, World, asking, fingerprinter, matcher

CALL = CallContext(Priority.BULK, deadline=1e9)
CONTENTS: list[Content] = [
    TextContent("one of many texts"),
    ImageContent(saved(landscape(1, (64, 64)), "PNG")),
]
TEXTS = Policy(cosine=(CosineRule(PROSE.id, Modality.TEXT, review=0.7),))
BOTH = Policy(cosine=(*TEXTS.cosine, CosineRule(PICTURES.id, Modality.IMAGE, review=0.7)))


def test_a_match_says_for_whom_it_encodes() -> None:
    """Texts and images, and once more where a policy was given a rule meanwhile."""
    prose, pictures = FakeTextEncoder(), FakeImageEncoder()
    world = World()
    world.bank("b", TEXTS)
    early = world.view()
    world.bank("b", BOTH)
    views = RestlessViews([early, world.view(seq=2)])
    matcher(views, encoders(prose, pictures)).match(CONTENTS, asking(), CALL)
    assert prose.calls == [CALL, CALL]
    assert pictures.calls == [CALL]


def test_a_ban_says_for_whom_it_encodes() -> None:
    """Unless it is told, for nobody who has a deadline."""
    prose, pictures = FakeTextEncoder(), FakeImageEncoder()
    fingerprints = fingerprinter(encoders(prose, pictures))
    fingerprints.ban(CONTENTS, CALL)
    fingerprints.ban(CONTENTS)
    assert prose.calls == pictures.calls == [CALL, NO_CALL]


@pytest.mark.parametrize(
    ("call", "refusal"),
    [
        (replace(CALL, deadline=0), DeadlinePassed),
        (replace(CALL, is_wanted=lambda: False), NotReady),
    ],
)
def test_what_is_worth_nothing_any_more_fails_the_whole_call(
    call: CallContext, refusal: type[SimsearchError]
) -> None:
    """All contents of a call have one deadline: none is answered as if it had no signal."""
    prose = FakeTextEncoder()
    batched = BatchedTextEncoder(prose)
    world = World()
    world.bank("b", TEXTS)
    loaded = EncoderSet({"prose": LoadedEncoder("prose", Modality.TEXT, text=batched)})
    asked = matcher(world.view(), loaded)
    with pytest.raises(refusal):
        asked.match(CONTENTS[:1], asking(), call)
    assert prose.asked == []
    batched.close()
