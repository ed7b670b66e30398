"""REST under /v1: checks what is asked, records it as desired state, shows what is there."""
