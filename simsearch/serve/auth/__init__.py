"""Authentication and authorization: identities, roles, rate limits, redaction."""
