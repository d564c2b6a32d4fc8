"""MatchService: single calls, batches and streams."""
