"""Commands of `simsearch-build`, a module for each subject, imported when one is chosen."""
