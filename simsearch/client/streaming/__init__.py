"""StreamMatch: one stream of contents and answers, restarted where a server goes away."""
