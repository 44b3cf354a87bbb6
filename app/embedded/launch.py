"""Runs between fork and exec of every server we start, as its own small process: ``python -I -S launch.py ...``.

It ties the child to its parent, chooses whom the child runs as, then becomes the server. A ``preexec_fn`` would do the
same inside a process full of threads, where only async-signal-safe code may run between fork and exec.
Standard library only, and nothing of ``app``: it is started by its path.
"""

from __future__ import annotations

import ctypes
import os
import sys

NOBODY = 65534  # needs an entry in the password file, which `nobody` has
REFUSED = 97  # our exit status when the kernel refuses a user namespace
PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000


def enter_user_namespace() -> None:
    """Look like nobody to ourselves, while files stay those of the caller: PostgreSQL refuses to run as root.

    Raises: OSError where user namespaces are forbidden.
    """
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)  # os.unshare exists from 3.12 on
    if libc.unshare(CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    for name, value in (("setgroups", "deny"), ("uid_map", f"{NOBODY} {uid} 1"), ("gid_map", f"{NOBODY} {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(value)


def become_nobody() -> None:
    """Drop to the user nobody for good."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def die_with(parent: int, signal_number: int) -> None:
    """Have the kernel send us ``signal_number`` when the thread that started us ends."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(1)


def main(arguments: list[str]) -> None:
    """Arguments: parent's pid, signal at its death, run as (caller, namespace, nobody), then the command.

    The command ``--can-reach PATH...`` starts nothing; exit status 0 when that user may enter or run each path, else 1.
    """
    parent, death_signal, run_as, *command = arguments
    if run_as == "namespace":
        try:
            enter_user_namespace()
        except OSError as error:
            print(f"user namespaces are refused here: {error}", file=sys.stderr)  # noqa: T201 - our parent reads it
            sys.exit(REFUSED)
    elif run_as == "nobody":
        become_nobody()
    die_with(int(parent), int(death_signal))  # after the change of user, which clears it
    if command[0] == "--can-reach":
        sys.exit(0 if all(os.access(path, os.X_OK) for path in command[1:]) else 1)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
