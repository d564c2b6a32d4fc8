"""Command table: every command's words, its function, and its line in a list of commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from simsearch.lazy_commands import LazyCommand, LazyCommands, Row

HERE: Final = "simsearch.cli"


def _row(name: str, target: str, line: str) -> LazyCommand:
    return LazyCommand(name, f"{HERE}.{target}", line)


BANK: Final = LazyCommands(
    "bank",
    "Banks: named sets of banned items, each with one policy.",
    (
        _row("create", "banks.bank:create", "Create a bank."),
        _row("list", "banks.bank:list_", "List the banks."),
        _row("get", "banks.bank:get", "Show one bank and its policy."),
        _row("update", "banks.bank:update", "Change a bank's settings or policy."),
    ),
)
ENTRY: Final = LazyCommands(
    "entry",
    "Entries: what is banned, and its retraction.",
    (
        _row("list", "entries.entry_list:list_", "List a bank's entries, the oldest ban first."),
        _row(
            "find",
            "entries.entry_find:find",
            "Show the entries nearest to one content, best first.",
        ),
        _row(
            "extend",
            "entries.encoder_migration:extend",
            "Give one entry the signals it lacks, from the content it was banned with.",
        ),
        _row(
            "backfill",
            "entries.encoder_migration:backfill",
            "Extend every entry whose content is in a folder of images or a file of texts.",
        ),
        _row(
            "compare-encoders",
            "entries.encoder_migration:compare_encoders",
            "Ask both spaces of a bank about a sample of yours, and tell how far they agree.",
        ),
        _row("add", "entries.entry:add", "Ban one item."),
        _row("get", "entries.entry:get", "Show one entry: who banned it, when and why."),
        _row("set-state", "entries.entry:set_state", "Set the state of an entry."),
        _row("retract", "entries.entry:retract", "Take a ban back."),
    ),
)
PROPOSAL: Final = LazyCommands(
    "proposal",
    "Edits that wait for a second person.",
    (
        _row("list", "oversight.proposals:list_", "List what waits, the oldest first."),
        _row(
            "show",
            "oversight.proposals:show",
            "Show one: what is to be done, who asks for it, why, and what became of it.",
        ),
        _row(
            "approve",
            "oversight.proposals:approve",
            "Let what somebody else proposed be done, and do it.",
        ),
        _row("reject", "oversight.proposals:reject", "Turn down what somebody else proposed."),
        _row("withdraw", "oversight.proposals:withdraw", "Take back a proposal of your own."),
    ),
)
CONFIG: Final = LazyCommands(
    "config",
    "The configuration file.",
    (
        _row(
            "check",
            "server.config_check:config_check",
            "Read a configuration file and say what is wrong with it, or what it means.",
        ),
    ),
)
TOKEN: Final = LazyCommands(
    "token",
    "Tokens that say who calls.",
    (
        _row(
            "new",
            "server.token_new:new",
            "Make a token and show it this once, with what the identities file is to hold of it.",
        ),
    ),
)
AUDIT: Final = LazyCommands(
    "audit",
    "The record of edits: who did what, and whether it is still what it was.",
    (
        _row(
            "show",
            "oversight.audit_log:show",
            "Show who changed what, when and why; the newest last.",
        ),
        _row("head", "oversight.audit_log:head", "Print the end of the record, a line of JSON."),
        _row(
            "verify",
            "oversight.audit_verify:verify",
            "Hold the record of edits against itself, the tables and the heads.",
        ),
    ),
)
OPINION: Final = LazyCommands(
    "opinion",
    "Opinions: what people think of hits.",
    (
        _row(
            "export",
            "oversight.opinion_export:export",
            "Write the opinions on a bank's hits, for partners or for yourself.",
        ),
        _row("give", "oversight.opinions:give", "Say what a hit of an entry was."),
        _row(
            "list",
            "oversight.opinions:list_",
            "List what people said of a bank's hits, by entry, each entry's oldest first.",
        ),
    ),
)
REVIEW: Final = LazyCommands(
    "review",
    "Review: entries that wait for somebody to decide.",
    (
        _row(
            "list",
            "oversight.opinions:review",
            "List what waits for somebody to decide, the longest first.",
        ),
    ),
)

COMMANDS: Final[Sequence[Row]] = (
    _row("serve", "server.serve:serve", "Run the server until Ctrl-C or SIGTERM."),
    _row(
        "status",
        "server.status:status",
        "What a server searches with, and how far its searches are behind the bank.",
    ),
    _row(
        "match",
        "match.match:match",
        "Is this content banned, or a copy or rewording of something that is?",
    ),
    _row(
        "import",
        "lists.import_list:import_",
        "Ban what a list holds, and take back what it withdraws.",
    ),
    _row(
        "export",
        "lists.export_bank:export",
        "Write what a bank holds, as it is at this moment, with a manifest.",
    ),
    _row(
        "explain",
        "match.explain:explain",
        "Explain a hit: the verdict of a receipt, gone through again, and what has changed since.",
    ),
    _row("diff", "banks.diff:diff", "Compare two banks, two moments of one bank, or two entries."),
    _row(
        "demo",
        "demo.command:demo",
        "Start a real server, ban real content, send edited copies, and show what is caught.",
    ),
    _row(
        "revert", "oversight.revert_command:revert", "Take back what somebody did, by new changes."
    ),
    BANK,
    ENTRY,
    PROPOSAL,
    CONFIG,
    TOKEN,
    AUDIT,
    OPINION,
    REVIEW,
)
