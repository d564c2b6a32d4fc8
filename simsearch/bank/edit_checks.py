"""Edit validation: limits and formats, checked before anything is written."""

from __future__ import annotations

import re
from collections.abc import Sequence, Sized

import numpy as np

from simsearch.bank.records.fingerprints import DIM_MAX, are_unit
from simsearch.errors import (
    BadBankName,
    BadHash,
    BadRequest,
    BadVector,
    LimitExceeded,
    NoSignal,
)
from simsearch.types import (
    BINARY_BYTES,
    DIGESTS,
    BankUpdate,
    Bits,
    Edit,
    EntryDraft,
    EntryState,
    Fingerprint,
    OpinionDraft,
    Policy,
    Signal,
    Vectors,
)

ACTOR_CHARS_MAX = 128
REASON_CHARS_MAX = 2_000
DESCRIPTION_CHARS_MAX = 4_000
NOTE_CHARS_MAX = 4_000
SOURCE_CHARS_MAX = 256
LABELS_MAX = 32
LABEL_CHARS_MAX = 64
SPACE_CHARS_MAX = 256
RULES_MAX = 256
ROWS_MAX = 1_024
BANKS_MAX = 4_096
ENTRIES_PER_EDIT_MAX = 16_384
LIMIT_MAX = 10_000
AFTER_MAX = 2**63 - 1
TIME_MAX_US = 253_402_300_799_999_999
"""The end of the year 9999: the largest time of a protobuf Timestamp."""

IMPORT_ID_CHARS_MAX = 128

EDIT_BYTES_MAX = 256 << 20
"""Of fingerprints in one transaction: half of the dirty pages that LMDB keeps in memory."""

NORM_TOLERANCE = 1e-3

CASE_ID_CHARS_MAX = 128
SEVERITY_CHARS_MAX = 64
ALIASES_MAX = 32
FIRST_STATES = tuple(state for state in EntryState if state is not EntryState.RETRACTED)
MOVES_TO = (EntryState.ACTIVE, EntryState.SHADOW, EntryState.DISPUTED, EntryState.QUARANTINED)

_BANK_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


def check_edit(edit: Edit) -> None:
    """Requires an actor and a reason. Raises BadRequest, LimitExceeded."""
    _check_text(edit.actor, "actor", ACTOR_CHARS_MAX)
    _check_text(edit.reason, "reason", REASON_CHARS_MAX)
    _check_given(edit.actor, "actor", "who edits")
    _check_given(edit.reason, "reason", "why")


def check_bank_name(name: str) -> None:
    """Raises BadBankName."""
    if _BANK_NAME.fullmatch(name) is None:
        raise BadBankName(
            f"{name[:80]!r} is no bank name: a lower-case letter, then up to 63 of a-z 0-9 _ -"
        )


def check_description(description: str) -> None:
    """Raises BadRequest, LimitExceeded."""
    _check_text(description, "description", DESCRIPTION_CHARS_MAX)


def check_policy(policy: Policy) -> None:
    """Sizes only; thresholds are checked by `match.policy`. Raises BadRequest, LimitExceeded."""
    rules = len(policy.cosine) + len(policy.hamming) + len(policy.digests)
    _check_count(rules, RULES_MAX, "rules in a policy")
    for rule in policy.cosine:
        _check_text(rule.space, "space", SPACE_CHARS_MAX)


def check_update(update: BankUpdate) -> None:
    """Raises BadRequest where it sets nothing or holds a bad value, and LimitExceeded."""
    if update == BankUpdate():
        raise BadRequest("the update changes nothing: give a description, a policy or a setting")
    if update.description is not None:
        check_description(update.description)
    if update.policy is not None:
        check_policy(update.policy)
    if update.owner is not None:
        _check_text(update.owner, "owner", ACTOR_CHARS_MAX)
    if update.enabled_ratio is not None:
        _check_ratio(update.enabled_ratio)


def _check_ratio(ratio: float) -> None:
    if not 0 <= ratio <= 1:  # as no NaN is, too
        raise BadRequest(
            f"enabled_ratio is {ratio}: give the share of hits that counts, 0 (none) to 1 (all)"
        )


def check_page(after: int, limit: int) -> None:
    """Checks the cursor and size of a page. Raises BadRequest, LimitExceeded."""
    if not 0 <= after <= AFTER_MAX:
        raise BadRequest(f"cannot list after {after}: begin with 0, then give the last one seen")
    if limit < 1:
        raise BadRequest(f"limit is {limit}: ask for 1 or more")
    _check_count(limit, LIMIT_MAX, "asked for at once")


def check_drafts(drafts: Sequence[EntryDraft]) -> None:
    """Raises NoSignal, BadHash, BadVector, BadRequest, LimitExceeded."""
    if not drafts:
        raise BadRequest("no entries were given: add at least one")
    _check_count(len(drafts), ENTRIES_PER_EDIT_MAX, "entries in one edit")
    for draft in drafts:
        _check_draft(draft)
    _check_bytes([draft.fingerprint for draft in drafts])


def check_extension(fingerprint: Fingerprint) -> None:
    """The same checks as for the fingerprint of a draft."""
    _check_fingerprint(fingerprint)
    _check_bytes([fingerprint])


def check_move(state: EntryState, until_us: int) -> None:
    """Raises BadRequest for a state that no entry can be moved to, or a bad time."""
    if state not in MOVES_TO:
        words = " or ".join(s.name.lower() for s in MOVES_TO)
        raise BadRequest(f"an entry cannot be made {state.name.lower()}: make it {words}")
    _check_time(until_us, "until")


def _check_time(time_us: int, name: str) -> None:
    if not 0 <= time_us <= TIME_MAX_US:
        raise BadRequest(f"{name} is no time that a store can hold: leave it out for never")


def check_opinion(draft: OpinionDraft) -> None:
    """Raises BadHash, BadRequest, LimitExceeded."""
    _check_text(draft.note, "note", NOTE_CHARS_MAX)
    _check_text(draft.case_id, "case_id", CASE_ID_CHARS_MAX)
    if draft.content_sha256:
        check_digest(Signal.SHA256, draft.content_sha256)


def check_import(import_id: str, part: int, items: Sized) -> None:
    """Checks the frame of an import part, not its rows. Raises BadRequest, LimitExceeded."""
    _check_given(import_id, "import_id", "which import it is, so that it can be gone on with")
    _check_text(import_id, "import_id", IMPORT_ID_CHARS_MAX)
    if not 0 <= part < 2**32:
        raise BadRequest(f"part is {part}: number the parts from 0")
    if not len(items):
        raise BadRequest("the part holds no rows: leave it out")
    _check_count(len(items), ENTRIES_PER_EDIT_MAX, "rows in one part")


def check_digest(signal: Signal, digest: bytes) -> None:
    """Raises BadHash where `signal` is no digest or `digest` has another length."""
    if signal not in DIGESTS:
        raise BadHash(f"{signal} is not matched by equality: search it by distance")
    if len(digest) != DIGESTS[signal]:
        raise BadHash(f"a {signal} has {DIGESTS[signal]} bytes, not {len(digest)}")


def _check_draft(draft: EntryDraft) -> None:
    _check_count(len(draft.labels), LABELS_MAX, "labels on an entry")
    for label in draft.labels:
        _check_given(label, "label", "a word")
        _check_text(label, "label", LABEL_CHARS_MAX)
    _check_text(draft.source, "source", SOURCE_CHARS_MAX)
    _check_text(draft.source_id, "source_id", SOURCE_CHARS_MAX)
    _check_text(draft.note, "note", NOTE_CHARS_MAX)
    _check_time(draft.expires_us, "expires")
    if draft.state not in FIRST_STATES:
        words = " or ".join(s.name.lower() for s in FIRST_STATES)
        raise BadRequest(f"an entry cannot begin {draft.state.name.lower()}: begin it {words}")
    _check_text(draft.severity, "severity", SEVERITY_CHARS_MAX)
    _check_count(len(draft.aliases), ALIASES_MAX, "aliases of an entry")
    for alias in draft.aliases:
        _check_given(alias, "alias", "an id")
        _check_text(alias, "alias", SOURCE_CHARS_MAX)
    _check_fingerprint(draft.fingerprint)


def _check_fingerprint(fingerprint: Fingerprint) -> None:
    rows = sum(fingerprint.rows().values())
    if rows == 0:
        raise NoSignal("the entry has no signal: nothing could ever match it")
    _check_count(rows, ROWS_MAX, "rows in an entry")
    for signal, values in fingerprint.digests.items():
        for value in values:
            check_digest(signal, value)
    for signal, bits in fingerprint.bits.items():
        _check_bits(signal, bits)
    for space, vectors in fingerprint.vectors.items():
        _check_vectors(space, vectors)


def _check_bytes(fingerprints: Sequence[Fingerprint]) -> None:
    size_bytes = sum(map(_size_bytes, fingerprints))
    if size_bytes > EDIT_BYTES_MAX:
        raise LimitExceeded(
            f"the fingerprints of this edit have {size_bytes} bytes, the limit is "
            f"{EDIT_BYTES_MAX}: split it"
        )


def _size_bytes(fingerprint: Fingerprint) -> int:
    """Size on disk without digests and names; needs no encoding."""
    bits_bytes = sum(rows.nbytes for rows in fingerprint.bits.values())
    return bits_bytes + sum(2 * rows.size for rows in fingerprint.vectors.values())


def _check_bits(signal: Signal, bits: Bits) -> None:
    width = BINARY_BYTES.get(signal)
    if width is None:
        raise BadHash(f"{signal} is not a binary signal: give it as a digest")
    if bits.dtype != np.uint8 or bits.ndim != 2 or bits.shape[1] != width:
        raise BadHash(f"{signal} rows are {bits.dtype}{bits.shape}, not uint8 (n, {width})")


def _check_vectors(space: str, vectors: Vectors) -> None:
    _check_given(space, "space", "the space of the vectors")
    _check_text(space, "space", SPACE_CHARS_MAX)
    if vectors.dtype != np.float32 or vectors.ndim != 2:
        raise BadVector(
            f"vectors of {space} are {vectors.dtype}{vectors.shape}, not float32 (n, dim)"
        )
    if not 0 < vectors.shape[1] <= DIM_MAX:
        raise BadVector(f"vectors of {space} have dim {vectors.shape[1]}, not 1 to {DIM_MAX}")
    if not are_unit(vectors, NORM_TOLERANCE):
        raise BadVector(f"vectors of {space} are not of unit length: normalise them first")


def _check_given(text: str, name: str, what: str) -> None:
    if not any(c.isprintable() and not c.isspace() for c in text):
        raise BadRequest(f"{name} is missing: say {what}")


def _check_text(text: str, name: str, chars_max: int) -> None:
    if len(text) > chars_max:
        raise LimitExceeded(f"{name} has {len(text)} characters, the limit is {chars_max}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest(f"{name} is not valid Unicode: it holds half a surrogate pair") from None


def _check_count(count: int, count_max: int, what: str) -> None:
    if count > count_max:
        raise LimitExceeded(f"{count} {what}: the limit is {count_max}")
