"""Capabilities of this process (capabilities(7)), by prctl(2) and capset(2).

On Linux they belong to a thread: change them before there is a second one.
"""

import ctypes
import os
from collections.abc import Collection
from enum import IntEnum
from typing import Final

_PR_SET_KEEPCAPS: Final = 8  # linux/prctl.h, as the next ones
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_RAISE: Final = 2
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_VERSION_3: Final = 0x20080522  # linux/capability.h
_BITS: Final = 64

_libc: Final = ctypes.CDLL(None, use_errno=True)


class Capability(IntEnum):
    """The capabilities that tokgate may need, as numbered in linux/capability.h."""

    SETUID = 7
    SETPCAP = 8
    NET_BIND_SERVICE = 10
    NET_ADMIN = 12
    NET_RAW = 13


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Words(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def held() -> int:
    """The permitted capabilities of this thread, as a bit mask. Raises OSError."""
    return _permitted_and_inheritable()[0]


def limit_to(kept: Collection[Capability]) -> None:
    """Drop all capabilities but `kept`; programs that this process executes get none.

    Raises:
        OSError: capset is forbidden, as by a systemd unit's SystemCallFilter, and there is something to drop.
    """
    _bound_to(_mask(kept))
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    permitted, inheritable = _permitted_and_inheritable()
    mask = permitted & _mask(kept)
    if mask != permitted:
        _hold(mask, mask & inheritable)


def pass_on() -> None:
    """Keep the capabilities through exec, as ambient ones, although the process is not root's. Raises OSError."""
    permitted, inheritable = _permitted_and_inheritable()
    if permitted & ~inheritable:
        _hold(permitted, permitted)
    for number in range(_BITS):
        if permitted >> number & 1:
            _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number)


def become(uid: int, gid: int, groups: Collection[int], kept: Collection[Capability]) -> None:
    """Change from root to another user with the capabilities `kept`. Setuid programs can't undo it.

    Raises:
        OSError: the system refuses; the process should exit.
    """
    mask = _mask(kept)
    _bound_to(mask)
    os.setgroups(list(groups))
    _prctl(_PR_SET_KEEPCAPS, 1)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _hold(mask, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _bound_to(mask: int) -> None:
    """Have no program that this process executes get others, be it root's; nothing without the right to."""
    for number in range(_BITS) if held() >> Capability.SETPCAP & 1 else ():
        if not mask >> number & 1 and _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            _prctl(_PR_CAPBSET_DROP, number)


def _permitted_and_inheritable() -> tuple[int, int]:
    header, words = _Header(_VERSION_3, 0), (_Words * 2)()
    _checked(_libc.capget(ctypes.byref(header), words))
    low, high = words
    return low.permitted | high.permitted << 32, low.inheritable | high.inheritable << 32


def _hold(mask: int, inheritable: int) -> None:
    header, words = _Header(_VERSION_3, 0), (_Words * 2)()
    for index, shift in enumerate((0, 32)):
        low, passed = mask >> shift & 0xFFFFFFFF, inheritable >> shift & 0xFFFFFFFF
        words[index].effective, words[index].permitted, words[index].inheritable = low, low, passed
    _checked(_libc.capset(ctypes.byref(header), words))


def _mask(capabilities: Collection[Capability]) -> int:
    return sum(1 << each for each in set(capabilities))


def _prctl(option: int, first: int, second: int = 0) -> None:
    words = (ctypes.c_ulong(each) for each in (first, second, 0, 0))
    _checked(_libc.prctl(option, *words))


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
