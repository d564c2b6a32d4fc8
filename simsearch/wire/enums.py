"""Enum tables: numbers on the wire and domain values, each way."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from simsearch.types import (
    Band,
    BankKind,
    ChangeKind,
    EntryState,
    FourEyes,
    Modality,
    Signal,
    SignalState,
)
from simsearch.v1 import bank_pb2, content_pb2, match_pb2, policy_pb2

HITS_DEFAULT = 10

HASH_SIGNAL_NUMBERS: Mapping[Signal, content_pb2.HashSignal] = MappingProxyType(
    {
        Signal.SHA256: content_pb2.HASH_SIGNAL_SHA256,
        Signal.MD5: content_pb2.HASH_SIGNAL_MD5,
        Signal.TEXT_SHA256: content_pb2.HASH_SIGNAL_TEXT_SHA256,
        Signal.PDQ: content_pb2.HASH_SIGNAL_PDQ,
        Signal.MINHASH: content_pb2.HASH_SIGNAL_MINHASH,
        Signal.TEXT_LIGHT_SHA256: content_pb2.HASH_SIGNAL_TEXT_LIGHT_SHA256,
        Signal.TEXT_STRONG_SHA256: content_pb2.HASH_SIGNAL_TEXT_STRONG_SHA256,
        Signal.MINHASH1024: content_pb2.HASH_SIGNAL_MINHASH1024,
    }
)
HASH_SIGNALS: Mapping[int, Signal] = {n: signal for signal, n in HASH_SIGNAL_NUMBERS.items()}

MODALITY_NUMBERS: Mapping[Modality, content_pb2.Modality] = MappingProxyType(
    {
        Modality.IMAGE: content_pb2.MODALITY_IMAGE,
        Modality.TEXT: content_pb2.MODALITY_TEXT,
    }
)
MODALITIES: Mapping[int, Modality] = {n: modality for modality, n in MODALITY_NUMBERS.items()}

DTYPES: Mapping[int, np.dtype] = MappingProxyType(
    {
        content_pb2.VECTOR_DTYPE_FLOAT32: np.dtype("<f4"),
        content_pb2.VECTOR_DTYPE_FLOAT16: np.dtype("<f2"),
    }
)

BAND_NUMBERS: Mapping[Band, policy_pb2.Band] = MappingProxyType(
    {
        Band.NONE: policy_pb2.BAND_UNSPECIFIED,
        Band.LOG: policy_pb2.BAND_LOG,
        Band.REVIEW: policy_pb2.BAND_REVIEW,
        Band.BLOCK: policy_pb2.BAND_BLOCK,
    }
)
BANDS: Mapping[int, Band] = {n: band for band, n in BAND_NUMBERS.items()}
HIT_BANDS: Mapping[int, Band] = {n: band for n, band in BANDS.items() if band}

VERDICT_NUMBERS: Mapping[Band, match_pb2.Verdict] = MappingProxyType(
    {
        Band.NONE: match_pb2.VERDICT_NO_MATCH,
        Band.LOG: match_pb2.VERDICT_LOG,
        Band.REVIEW: match_pb2.VERDICT_REVIEW,
        Band.BLOCK: match_pb2.VERDICT_BLOCK,
    }
)
VERDICTS: Mapping[int, Band] = {n: band for band, n in VERDICT_NUMBERS.items()}

SIGNAL_STATE_NUMBERS: Mapping[SignalState, match_pb2.SignalState] = MappingProxyType(
    {
        SignalState.SEARCHED: match_pb2.SIGNAL_STATE_SEARCHED,
        SignalState.LOW_INFORMATION: match_pb2.SIGNAL_STATE_LOW_INFORMATION,
        SignalState.UNAVAILABLE: match_pb2.SIGNAL_STATE_UNAVAILABLE,
        SignalState.NOT_ASKED: match_pb2.SIGNAL_STATE_NOT_ASKED,
        SignalState.NOT_COMPUTED: match_pb2.SIGNAL_STATE_NOT_COMPUTED,
        SignalState.PARTIAL: match_pb2.SIGNAL_STATE_PARTIAL,
    }
)
SIGNAL_STATES: Mapping[int, SignalState] = {n: s for s, n in SIGNAL_STATE_NUMBERS.items()}

ENTRY_STATE_NUMBERS: Mapping[EntryState, bank_pb2.EntryState] = MappingProxyType(
    {
        EntryState.ACTIVE: bank_pb2.ENTRY_STATE_ACTIVE,
        EntryState.RETRACTED: bank_pb2.ENTRY_STATE_RETRACTED,
        EntryState.DRAFT: bank_pb2.ENTRY_STATE_DRAFT,
        EntryState.SHADOW: bank_pb2.ENTRY_STATE_SHADOW,
        EntryState.QUARANTINED: bank_pb2.ENTRY_STATE_QUARANTINED,
        EntryState.DISPUTED: bank_pb2.ENTRY_STATE_DISPUTED,
    }
)
BANK_KIND_NUMBERS: Mapping[BankKind, bank_pb2.BankKind] = MappingProxyType(
    {
        BankKind.BANNED: bank_pb2.BANK_KIND_BANNED,
        BankKind.ALLOWED: bank_pb2.BANK_KIND_ALLOWED,
    }
)
BANK_KINDS: Mapping[int, BankKind] = {n: kind for kind, n in BANK_KIND_NUMBERS.items()}
FOUR_EYES_NUMBERS: Mapping[FourEyes, bank_pb2.FourEyes] = MappingProxyType(
    {
        FourEyes.AS_CONFIGURED: bank_pb2.FOUR_EYES_UNSPECIFIED,
        FourEyes.REQUIRED: bank_pb2.FOUR_EYES_REQUIRED,
        FourEyes.OFF: bank_pb2.FOUR_EYES_OFF,
    }
)
FOUR_EYES: Mapping[int, FourEyes] = {n: said for said, n in FOUR_EYES_NUMBERS.items()}
CHANGE_KIND_NUMBERS: Mapping[ChangeKind, bank_pb2.ChangeKind] = MappingProxyType(
    {
        ChangeKind.BANK_CREATED: bank_pb2.CHANGE_KIND_BANK_CREATED,
        ChangeKind.BANK_UPDATED: bank_pb2.CHANGE_KIND_BANK_UPDATED,
        ChangeKind.ENTRY_ADDED: bank_pb2.CHANGE_KIND_ENTRY_ADDED,
        ChangeKind.ENTRY_RETRACTED: bank_pb2.CHANGE_KIND_ENTRY_RETRACTED,
        ChangeKind.ENTRY_EXTENDED: bank_pb2.CHANGE_KIND_ENTRY_EXTENDED,
        ChangeKind.ENTRY_MOVED: bank_pb2.CHANGE_KIND_ENTRY_MOVED,
        ChangeKind.OPINION_GIVEN: bank_pb2.CHANGE_KIND_OPINION_GIVEN,
        ChangeKind.PROPOSAL_MADE: bank_pb2.CHANGE_KIND_PROPOSAL_MADE,
        ChangeKind.PROPOSAL_DECIDED: bank_pb2.CHANGE_KIND_PROPOSAL_DECIDED,
        ChangeKind.BANK_EXPORTED: bank_pb2.CHANGE_KIND_BANK_EXPORTED,
    }
)
CHANGE_KINDS: Mapping[int, ChangeKind] = {n: kind for kind, n in CHANGE_KIND_NUMBERS.items()}

ENTRY_STATES: Mapping[int, EntryState] = {n: state for state, n in ENTRY_STATE_NUMBERS.items()}
