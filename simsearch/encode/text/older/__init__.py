"""The older normal form `strong1`, in which rows of banks from before are asked."""
