"""libpfm4 through ctypes: the encoding of an event of any CPU that it knows, on any machine.

Its manual pages: pfm_get_os_event_encoding(3), libpfm(3). Debian: libpfm4.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Any

_PERF_EVENT, _USER_AND_KERNEL = 1, 0x8
_ATTRIBUTE_BYTES = 128


class _Arguments(ctypes.Structure):
    """pfm_perf_encode_arg_t"""

    _fields_ = [
        ("attr", ctypes.c_void_p),
        ("fstr", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("idx", ctypes.c_int),
        ("cpu", ctypes.c_int),
        ("flags", ctypes.c_int),
    ]


class Libpfm4:
    """The library, told to encode events of CPUs that this machine does not have. OSError where there is none."""

    def __init__(self) -> None:
        self._library: Any = ctypes.CDLL("libpfm.so.4")
        os.environ["LIBPFM_ENCODE_INACTIVE"] = "1"  # read when it is initialised, once for a process
        try:
            assert self._library.pfm_initialize() == 0
        finally:
            del os.environ["LIBPFM_ENCODE_INACTIVE"]
        self._library.pfm_strerror.restype = ctypes.c_char_p

    def config(self, event: str) -> int:
        """Return what perf_event_open takes as `config` for 'skx::DTLB_LOAD_MISSES:STLB_HIT'; LookupError for none."""
        attribute = ctypes.create_string_buffer(_ATTRIBUTE_BYTES)
        arguments = _Arguments(attr=ctypes.addressof(attribute), size=ctypes.sizeof(_Arguments))
        code = self._library.pfm_get_os_event_encoding(
            event.encode(), _USER_AND_KERNEL, _PERF_EVENT, ctypes.byref(arguments)
        )
        if code:
            raise LookupError(f"{event}: {self._library.pfm_strerror(code).decode()}")
        _, _, config = struct.unpack_from("=IIQ", attribute.raw)  # type, size, config
        return int(config)
