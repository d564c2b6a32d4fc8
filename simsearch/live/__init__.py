"""The view that searches run against, and the follower that keeps it up with the bank."""
