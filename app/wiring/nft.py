"""nftables' own program, nft(8), for the fixed rules of networks.

Used by `filters` when a network is made or removed; what changes with each application goes
through `nfnetlink`.
"""

from __future__ import annotations

import shutil
import subprocess

from app.domain.errors import HostLacks, RuntimeFailure

_REMEDY = "install the package 'nftables', and run the agent as root or with NET_ADMIN"
_PLACES = "/usr/sbin:/sbin:/usr/bin:/usr/local/sbin"


class NftError(RuntimeFailure):
    """nftables refused a command."""


def run(
    commands: str, *, handles: bool = False, as_json: bool = False, missing: str | None = None
) -> str:
    """The output of one transaction, on request with rules' handles or as JSON.

    `missing` is the output where what is asked for is not there. Raises NftError with nft's own
    message, and HostLacks.
    """
    program = shutil.which("nft", path=_PLACES)
    if program is None:
        raise HostLacks("the program nft is not installed", remedy=_REMEDY)
    words = [program, *(["-a"] if handles else []), "-f", "-"]
    if as_json:  # with -j a file would have to be JSON as well
        words = [program, "-j", *commands.split()]
    done = subprocess.run(words, input=commands, capture_output=True, text=True)
    if missing is not None and "No such file or directory" in done.stderr:
        return missing
    if done.returncode and "Operation not permitted" in done.stderr:
        raise HostLacks("nftables: not permitted", remedy=_REMEDY)
    if done.returncode < 0:
        raise NftError(
            f"nft was killed by signal {-done.returncode}",
            remedy="older versions crash on sets that newer ones have made: update nftables",
        )
    if done.returncode:
        raise NftError(f"nftables: {done.stderr.strip()}")
    return done.stdout
