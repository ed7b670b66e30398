"""The words and rules of the project as plain data: no I/O, imported by every other room."""
