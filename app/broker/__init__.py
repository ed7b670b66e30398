"""The other end of every application's `/run/cse/broker.sock`."""
