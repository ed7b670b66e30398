"""nftables, spoken to inside this process through libnftables (1 ms, against 10 for the program).

Used by `filters`. Where the library is missing the program `nft` is run instead.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import shutil
import subprocess
import threading

from app.domain.errors import HostLacks, RuntimeFailure

_HANDLES = 1 << 3  # NFT_CTX_OUTPUT_HANDLE
_REMEDY = "install the package 'nftables', and run the agent as root or with NET_ADMIN"


class NftError(RuntimeFailure):
    """nftables refused a command."""


class Nft:
    """Runs commands in nft(8)'s own language; each call is one transaction."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._library = _load()
        self._context = self._library.nft_ctx_new(0) if self._library else None
        if self._library and self._context:
            self._library.nft_ctx_buffer_error(self._context)
            self._library.nft_ctx_buffer_output(self._context)

    def run(self, commands: str, *, handles: bool = False) -> str:
        """The output, on request with rules' handles. Raises NftError with nft's own message."""
        with self._lock:
            if self._library and self._context:
                flags = _HANDLES if handles else 0
                self._library.nft_ctx_output_set_flags(self._context, flags)
                return self._in_process(commands)
        return self._as_program(commands, handles)

    def _in_process(self, commands: str) -> str:
        library = self._library
        assert library is not None
        failed = library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = library.nft_ctx_get_output_buffer(self._context) or b""
        error: bytes = library.nft_ctx_get_error_buffer(self._context) or b""
        if failed:
            raise _error(error.decode(errors="replace"))
        return output.decode(errors="replace")

    def _as_program(self, commands: str, handles: bool) -> str:
        program = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin:/usr/local/sbin")
        if program is None:
            raise HostLacks("neither libnftables nor the program nft is installed", remedy=_REMEDY)
        words = [program, *(["-a"] if handles else []), "-f", "-"]
        done = subprocess.run(words, input=commands, capture_output=True, text=True)
        if done.returncode:
            raise _error(done.stderr)
        return done.stdout


def _error(text: str) -> RuntimeFailure | HostLacks:
    if "Operation not permitted" in text:
        return HostLacks("nftables: not permitted", remedy=_REMEDY)
    return NftError(f"nftables: {text.strip()}")


def _load() -> ctypes.CDLL | None:
    for name in ("libnftables.so.1", ctypes.util.find_library("nftables")):
        try:
            library = ctypes.CDLL(name) if name else None
        except OSError:
            continue
        if library is None:
            continue
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        for buffer in ("error", "output"):
            getattr(library, f"nft_ctx_buffer_{buffer}").argtypes = [ctypes.c_void_p]
            reader = getattr(library, f"nft_ctx_get_{buffer}_buffer")
            reader.argtypes, reader.restype = [ctypes.c_void_p], ctypes.c_char_p
        return library
    return None
