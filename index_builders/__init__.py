"""The batch side: works on a bank's directory, without a server. Nothing imports it."""
