"""Health: canary, warm-up, readiness, status."""
