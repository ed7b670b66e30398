"""The whole story, as a user lives it."""
