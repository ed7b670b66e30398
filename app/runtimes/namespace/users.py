"""`spec.user` as numbers: the host's own accounts, for the host's own file tree."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from app.domain.errors import HostLacks, InvalidSpecification


@dataclass(frozen=True)
class User:
    """Whom a program runs as; `groups` are the supplementary ones."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve(text: str | None) -> User | None:
    """None: whoever runs the agent. `USER`, `UID` or either with `:GROUP`."""
    if text is None:
        return None
    user, _, group = text.partition(":")
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError:
        entry = None
    if entry is None and not user.isdigit():
        raise InvalidSpecification(
            f"this host has no user '{user}'", pointer="/user", remedy="give a number, or create it"
        )
    uid = entry.pw_uid if entry else int(user)
    gid = entry.pw_gid if entry else uid
    groups = tuple(os.getgrouplist(entry.pw_name, gid)) if entry else (gid,)
    if group:
        try:
            gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise InvalidSpecification(
                f"this host has no group '{group}'", pointer="/user", remedy="give a number"
            ) from None
        groups = (gid,)
    if os.geteuid() != 0:
        if uid != os.geteuid():
            raise HostLacks(
                f"only root can start a program as another user ({text})",
                pointer="/user",
                remedy="leave 'user' out, or run the agent as root",
            )
        return None
    return User(uid, gid, groups, entry.pw_dir if entry else "/")
