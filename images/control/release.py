#!/opt/venv/bin/python
"""After the agent of the compose stack has ended: give back what no application uses any more.

Called by cse-agent. While applications are there, so are their bridges and filters: they go on
without the agent. With the last one gone, `docker compose down` leaves the host's network clean.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, "/opt/cse")

from app.agent import identity
from app.runtimes import rundir
from app.wiring.wiring import Wiring

state = Path(os.environ["CSE_STATE_DIR"])
if not list(rundir.sealed(state)):
    wiring = Wiring(identity.network_mark(state))
    wiring.remove_all()
    wiring.close()
