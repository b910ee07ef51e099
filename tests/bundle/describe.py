"""Says what is in a directory, or below contents/ in a tar file: one line for each entry, sorted, the same for both.

usage: describe.py tree DIR | tar FILE
Modes are printed as they are; names of one file share a group, named by the first of them.
"""
import hashlib
import os
import stat
import sys
import tarfile


def tree(root):
    entries, groups = [], {}

    def walk(fd, prefix):
        for name in sorted(os.listdir(fd), key=os.fsencode):
            path = prefix + os.fsencode(name)
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            mode = stat.S_IMODE(info.st_mode)
            if stat.S_ISDIR(info.st_mode):
                entries.append((path, "directory", mode, ""))
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
                walk(below, path + b"/")
                os.close(below)
            elif stat.S_ISLNK(info.st_mode):
                entries.append((path, "link", 0o777, os.fsencode(os.readlink(name, dir_fd=fd)).hex()))
            elif stat.S_ISREG(info.st_mode):
                with open(os.open(name, os.O_RDONLY, dir_fd=fd), "rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                entries.append((path, "file", mode, f"{info.st_size} {digest}"))
                if info.st_nlink > 1:
                    groups.setdefault((info.st_dev, info.st_ino), []).append(path)
            else:
                entries.append((path, "special", mode, ""))

    walk(os.open(root, os.O_RDONLY | os.O_DIRECTORY), b"")
    return entries, groups.values()


def tar(path):
    entries, groups = [], {}
    with tarfile.open(path) as archive:
        contents = {}
        for member in archive:
            name = os.fsencode(member.name)
            if not name.startswith(b"contents/"):
                continue
            name = name.removeprefix(b"contents/")
            # 1980-01-02: what ZIP files can have in every time zone.
            assert (member.uid, member.gid, member.mtime) == (0, 0, 315619200), member
            if member.isdir():
                entries.append((name, "directory", member.mode, ""))
            elif member.issym():
                entries.append((name, "link", 0o777, os.fsencode(member.linkname).hex()))
            elif member.islnk():
                first = os.fsencode(member.linkname).removeprefix(b"contents/")
                groups.setdefault(first, [first]).append(name)
                entries.append((name, "file", member.mode, contents[first]))
            elif member.isreg():
                digest = hashlib.file_digest(archive.extractfile(member), "sha256").hexdigest()
                contents[name] = f"{member.size} {digest}"
                entries.append((name, "file", member.mode, contents[name]))
            else:
                entries.append((name, "special", member.mode, ""))
    return entries, groups.values()


entries, groups = {"tree": tree, "tar": tar}[sys.argv[1]](sys.argv[2])
group_of = {}
for group in groups:
    if len(group) > 1:
        group_of.update(dict.fromkeys(group, min(group)))
for path, kind, mode, content in sorted(entries):
    group = group_of.get(path, b"").hex()
    print(path.hex(), kind, f"{mode:04o}", content, group)
