"""Known-abuse matching: is this upload a copy or a rewording of something already banned?"""

__version__ = "0.1.0"
