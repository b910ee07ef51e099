# Prints a tree, one line an entry: path, type, mode, size, hash of the content or target of the link, names of a file.
import hashlib, os, stat, sys

root = os.fsencode(sys.argv[1])
ignored = {os.fsencode(name) for name in sys.argv[2:]}
first = {}
for directory, folders, files in os.walk(root):
    folders.sort()
    for name in sorted(folders + files):
        path = os.path.join(directory, name)
        shown = os.path.relpath(path, root)
        if shown in ignored:
            continue
        status = os.lstat(path)
        mode, size, what, same = stat.S_IMODE(status.st_mode), 0, "", ""
        if stat.S_ISLNK(status.st_mode):
            kind, mode, what = "link", 0, repr(os.readlink(path))
        elif stat.S_ISDIR(status.st_mode):
            kind = "directory"
        else:
            kind, size = "file", status.st_size
            digest = hashlib.sha256()
            with open(path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            what = digest.hexdigest()[:16]
            same = repr(first.setdefault(status.st_ino, shown)) if status.st_nlink > 1 else ""
        print(repr(shown), kind, oct(mode), size, what, same)
