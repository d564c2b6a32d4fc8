"""The services that edit: banks, entries, lists, proposals, opinions."""
