"""The dashboard in a real browser, against the real API and the namespace runtime."""
