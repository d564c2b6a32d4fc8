"""Texts as people see them, through the matcher and under the default policy of a new bank."""

from __future__ import annotations

import pytest

from simsearch.match.policy import default_policy
from simsearch.types import Band, MatchResult, TextContent
from tests.match.fakes import Views, World, asking, banned, matcher

COINS = (
    "Double your coins today: send any amount to the wallet below and get twice as much back "
    "within ten minutes"
)
MONEY = "أرسل المال إلى هذا الحساب الآن واحصل على الضعف"


def asked(ban: str, ask: str) -> MatchResult:
    """The answer about one text where another is banned."""
    world = World()
    world.bank("texts", default_policy(()))
    world.ban(1, "texts", banned(TextContent(ban)))
    [result] = matcher(Views(world.view())).match([TextContent(ask)], asking())
    assert isinstance(result, MatchResult)
    return result


def by_digest(result: MatchResult) -> dict[str, Band]:
    """The bands of the digests that were equal."""
    evidence = (e for hit in result.hits for e in hit.evidence)
    return {e.signal: e.band for e in evidence if e.signal.startswith("text_")}


DISGUISES = {
    "half Cyrillic": (
        "dоuьlе уour cоins tоdаy: ѕend any aмounт тo tһe wаlӏeт ьeӏoԝ аnԁ ԍeт тwіcе аs mucһ "
        "ьaсk wіtһin тen мinuтeѕ"
    ),
    "all Cyrillic": (
        "ԁоuьӏе уоur соіnѕ тоԁау: ѕеnԁ аnу амоunт то тһе ԝаӏӏет ьеӏоԝ аnԁ ԍет тԝісе аѕ мuсһ "
        "ьаск ԝітһіn теn міnuтеѕ"
    ),
    "Lisu": (
        "ꓓꓳꓴꓐꓡꓰ ꓬꓳꓴꓣ ꓚꓳꓲꓠꓢ ꓔꓳꓓꓮꓬ: ꓢꓰꓠꓓ ꓮꓠꓬ ꓮꓟꓳꓴꓠꓔ ꓔꓳ ꓔꓧꓰ ꓪꓮꓡꓡꓰꓔ ꓐꓰꓡꓳꓪ ꓮꓠꓓ ꓖꓰꓔ ꓔꓪꓲꓚꓰ ꓮꓢ ꓟꓴꓚꓧ "
        "ꓐꓮꓚꓗ ꓪꓲꓔꓧꓲꓠ ꓔꓰꓠ ꓟꓲꓠꓴꓔꓰꓢ"
    ),
    "Cherokee": (
        "ᎠᎾUᏴᏞᎬ ᎽᎾUᎡ ᏟᎾᏆNᏕ ᎢᎾᎠᎪᎽ: ᏕᎬNᎠ ᎪNᎽ ᎪᎷᎾUNᎢ ᎢᎾ ᎢᎻᎬ ᎳᎪᏞᏞᎬᎢ ᏴᎬᏞᎾᎳ ᎪNᎠ ᏀᎬᎢ ᎢᎳᏆᏟᎬ ᎪᏕ ᎷUᏟᎻ "
        "ᏴᎪᏟᏦ ᎳᏆᎢᎻᏆN ᎢᎬN ᎷᏆNUᎢᎬᏕ"
    ),
    "Canadian": (
        "ᗪOᑌᗷᒪE YOᑌᖇ ᑕOIᑎᔕ TOᗪᗩY: ᔕEᑎᗪ ᗩᑎY ᗩᗰOᑌᑎT TO TᕼE ᗯᗩᒪᒪET ᗷEᒪOᗯ ᗩᑎᗪ GET TᗯIᑕE ᗩᔕ ᗰᑌᑕᕼ "
        "ᗷᗩᑕK ᗯITᕼIᑎ TEᑎ ᗰIᑎᑌTEᔕ"
    ),
    "CJK": (
        "ᗪㄖㄩ乃ㄥ乇 ㄚㄖㄩ尺 匚ㄖ丨几丂 ㄒㄖᗪ卂ㄚ: 丂乇几ᗪ 卂几ㄚ 卂爪ㄖㄩ几ㄒ ㄒㄖ ㄒ卄乇 "
        "山卂ㄥㄥ乇ㄒ 乃乇ㄥㄖ山 卂几ᗪ Ꮆ乇ㄒ ㄒ山丨匚乇 卂丂 爪ㄩ匚卄 乃卂匚Ҝ 山丨ㄒ卄丨几 "
        "ㄒ乇几 爪丨几ㄩㄒ乇丂"
    ),
}
STRONG_DISGUISES = {
    "money signs": (
        "ĐØɄ฿ⱠɆ ɎØɄⱤ ₵Øł₦₴ ₮ØĐ₳Ɏ: ₴Ɇ₦Đ ₳₦Ɏ ₳₥ØɄ₦₮ ₮Ø ₮ⱧɆ ₩₳ⱠⱠɆ₮ ฿ɆⱠØ₩ ₳₦Đ ₲Ɇ₮ ₮₩ł₵Ɇ ₳₴ ₥Ʉ₵Ⱨ "
        "฿₳₵₭ ₩ł₮Ⱨł₦ ₮Ɇ₦ ₥ł₦Ʉ₮Ɇ₴"
    ),
    "Greek and Cyrillic": (
        "∂συвℓє уσυя ¢σιηѕ тσ∂αу: ѕєη∂ αηу αмσυηт тσ тнє ωαℓℓєт вєℓσω αη∂ gєт тωιςє αѕ мυςн "
        "вαςк ωιтнιη тєη мιηυтєѕ"
    ),
    "all Greek": (
        "dουβlε γουr cοιns τοdαγ: sεnd αnγ αmουnτ το τhε ωαllετ βεlοω αnd gετ τωιcε αs mυch "
        "βαcκ ωιτhιn τεn mιnυτεs"
    ),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_text_wholly_in_lookalikes_is_the_text(disguise: str) -> None:
    """However far it is disguised, its letters are what its readers take them for."""
    bands = {"text_light_sha256": Band.BLOCK, "text_strong_sha256": Band.REVIEW}
    assert by_digest(asked(COINS, DISGUISES[disguise])) == bands


@pytest.mark.parametrize("disguise", STRONG_DISGUISES)
def test_fancy_text_is_for_people_to_look_at(disguise: str) -> None:
    """Signs and letters that only resemble are undone in the strong form alone."""
    found = asked(COINS, STRONG_DISGUISES[disguise])
    assert by_digest(found) == {"text_strong_sha256": Band.REVIEW}


@pytest.mark.parametrize(
    ("written", "verdict"),
    [
        ("أرســل المـــال إلـى هـذا الحسـاب الآن واحصـل على الضعـف", Band.BLOCK),
        ("أَرْسِلِ المَالَ إِلَى هَذَا الحِسَابِ الآنَ وَاحْصُلْ عَلَى الضِّعْفِ", Band.BLOCK),
        ("ارسل المال الي هذا الحساب الان واحصل علي الضعف", Band.REVIEW),
    ],
)
def test_arabic_is_found_as_it_is_written_every_day(written: str, verdict: Band) -> None:
    """Stretched and with vowel marks it is the same text; alef and yeh without hamza and dots are
    for people to look at."""
    found = asked(MONEY, written)
    assert found.verdict is verdict
    assert by_digest(found)["text_strong_sha256"] is Band.REVIEW


@pytest.mark.parametrize(
    ("ban", "ask"),
    [
        ("sikildim artik bu isten cok sikildim", "sıkıldım artık bu işten çok sıkıldım"),
        (
            "They are planning World War III and you should join us",
            "They are planning World War II and you should join us",
        ),
        ("Mẹ tôi bán bò ở chợ mỗi ngày", "Mẹ tôi bán bơ ở chợ mỗi ngày"),
        (
            "Tengo veinte anos y vivo en Madrid con mi familia",
            "Tengo veinte años y vivo en Madrid con mi familia",
        ),
        (
            "Der Patient hat eine Verbrennung Grad III erlitten",
            "Der Patient hat eine Verbrennung Grad II erlitten",
        ),
    ],
)
def test_different_words_are_never_blocked_as_the_same(ban: str, ask: str) -> None:
    """A dotless i, an accent and a numeral tell words apart: at most a person looks at it."""
    found = asked(ban, ask)
    assert found.verdict <= Band.REVIEW
    assert "text_light_sha256" not in by_digest(found)
