"""The elements this host has, and what an application makes of them."""
