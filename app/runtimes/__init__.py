"""Ways to put a program into its surroundings; each implements `app.domain.ports.Runtime`."""
