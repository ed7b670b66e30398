"""CSE: private, user-mode operating-system services for unmodified Linux programs."""

__version__ = "0.1.0"
