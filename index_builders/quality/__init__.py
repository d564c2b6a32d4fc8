"""Quality checks: recall, whole banks, agreement of two encoders."""
