"""The claims of US 7,784,058, shown on real processes through the public REST interface."""
