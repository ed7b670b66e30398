"""The only part with privilege: composes runtimes, wiring, broker and evidence of one host."""
